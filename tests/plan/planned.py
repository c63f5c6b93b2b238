"""What the tests of plans share."""

from gift_jax import specs
from gift_jax.plan import cost_model
from gift_jax.plan import stages as stages_lib
from gift_jax.plan.workload import Workload


def work(config, name="v4-8"):
    (spec,) = specs.expand(config)
    return Workload(spec, cost_model.machine(name))


def stages(config, name="v4-8"):
    return {stage.name: stage for stage in stages_lib.stages(work(config, name))}


def student_training(planned):
    (stage,) = stages_lib.student_trainings(planned).values()
    return stage
