"""What the tests of plans share."""

from gift_jax import specs
from gift_jax.plan import cost_model
from gift_jax.plan.stages import Workload


def work(config, name="v4-8"):
    (spec,) = specs.expand(config)
    return Workload(spec, cost_model.machine(name))


def stages(config, name="v4-8"):
    return {stage.name: stage for stage in work(config, name).stages()}


def student_training(planned):
    (network,) = planned.trainings
    return planned.student_training(network)
