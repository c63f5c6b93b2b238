"""What the tests of plans share."""

from gift_jax import specs
from gift_jax.plan import cost_model, grid
from gift_jax.plan.stages import student_training as training_of
from gift_jax.plan.workload import Workload


def work(config, name="v4-8"):
    (spec,) = specs.expand(config)
    return Workload(spec, cost_model.machine(name))


def plans(config, name="v4-8"):
    return list(grid.plans(specs.expand(config), cost_model.machine(name)))


def plan(config, name="v4-8"):
    (found,) = plans(config, name)
    return found


def stages(config, name="v4-8"):
    return {stage.name: stage for stage in plan(config, name).stages}


def student_training(planned):
    (network,) = planned.trainings
    return training_of(planned, network)
