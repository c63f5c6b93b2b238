"""The stages of distillers against counts by hand."""

import numpy as np
import pytest

from gift_jax import specs
from gift_jax.configs import cifar10, digits, imagenet1k_resnet18
from gift_jax.distill.matching import dc
from gift_jax.plan.cost_model import tree_bytes
from tests.plan.planned import stages, work


def test_crops_are_scored_class_by_class_on_one_device():
    found = stages(imagenet1k_resnet18.get_config())["choice of crops (rded)"]
    # 300 images of 5 crops are 1,500 of each class: six times 256.
    assert (found.steps, found.per_device, found.devices) == (6 * 1000, 256, 1)
    # Digits have 143 images of a class, and 100 of them are asked for.
    found = stages(digits.get_config("distill=rded"))["choice of crops (rded)"]
    assert found.steps == 10 * int(np.ceil(100 * 5 / 256))
    config = digits.get_config("distill=rded,distilled.rded.images_per_class=300")
    found = stages(config)["choice of crops (rded)"]
    assert found.steps == 10 * int(np.ceil(143 * 5 / 256))


def test_recovery_takes_the_iterations_of_all_batches():
    config = cifar10.get_config("distill=sre2l,ipc=50,teacher.width=16")
    found = stages(config, "v4-8")
    step = found["recovery (sre2l)"]
    # Five batches of 100 images on four devices.
    assert (step.steps, step.per_device, step.devices) == (2 * 1000, 100, 4)
    of_two_hosts = stages(config, "v4-16")["recovery (sre2l)"]
    assert (of_two_hosts.steps, of_two_hosts.devices) == (1000, 5)
    forward = found["test of the teacher"]
    ratio = step.flops / step.images / (forward.flops / forward.images)
    assert 1.5 < ratio < 4  # there, and back to the images only


def test_teachers_take_turns_in_recoveries():
    config = cifar10.get_config("distill=edc,ipc=10,teacher.width=16")
    config.teacher.also = ("conv1-width=16",)
    config.distilled.edc.iterations = 7
    found = stages(config)
    names = [f"recovery (edc), conv{depth}-width=16" for depth in (3, 1)]
    assert [found[name].steps for name in names] == [4, 3]
    assert found[names[0]].flops > found[names[1]].flops
    forward = found["test of conv3-width=16"]
    ratio = found[names[0]].flops / 100 / (forward.flops / forward.images)
    assert 3 < ratio < 7  # as of SRe2L, and the images averaged over iterations
    assert found["statistics of conv1-width=16"].steps == 782  # 50,000 by 64
    assert found["choice of crops (rded)"].steps == 10 * 6


@pytest.mark.parametrize(
    ("name", "ipc", "each"),
    [
        ("dm", 2, 1),
        pytest.param("dc", 1, 1, marks=pytest.mark.slow),
        pytest.param("dc", 2, 10, marks=pytest.mark.slow),
    ],
)
def test_matching_takes_real_batches_through_new_networks(name, ipc, each, monkeypatch):
    config = cifar10.get_config(f"distill={name},ipc={ipc},student.width=16")
    config.distilled[name].update(width=16, iterations=3, batch_size=8)
    assert not list(work(config).left_out())
    found = stages(config)
    step = found[f"matching ({name})"]
    assert (step.steps, step.images, step.devices) == (3 * each, 10 * (8 + ipc), 1)
    forward = found["tests of conv3-width=16"]
    flops = step.flops
    if name == "dm":  # the step has real images of one class
        features = found["features of real images (dm)"]
        assert (features.steps, features.images) == (3 * 9, 8)
        flops += 9 * features.flops
    ratio = flops / step.images / (forward.flops / forward.images)
    assert 1 < ratio < 8
    epochs = found.get("training of networks (dc)")
    assert (epochs is not None) == (each > 1)
    if epochs:
        # 50 epochs after nine of ten steps; one is counted with every step.
        assert epochs.steps == 3 * (9 * 50 - 10)
        per_image = epochs.flops / 20 / (forward.flops / forward.images)
        assert 2 < per_image < 4
        # The step has the operations of one epoch, however many there are.
        monkeypatch.setattr(dc, "_LOOPS", ((10, 10, 1),))
        assert stages(config)["matching (dc)"].flops == step.flops


def test_trajectory_matching_takes_experts_and_all_steps_of_all_iterations():
    config = cifar10.get_config("distill=datm,ipc=2,student.width=16")
    config.distilled.datm.update(width=16, iterations=30, experts=3, epochs=25)
    assert not list(work(config).left_out())
    found = stages(config)
    training = found["training of experts (datm)"]
    assert (training.steps, training.images) == (3 * 25 * 196, 256)
    step = found["matching (datm)"]  # 80 steps on all images, those of IPC 10's recipe
    assert (step.steps, step.images, step.devices) == (30 * 80, 20, 1)
    forward = found["tests of conv3-width=16"]
    ratio = step.flops / step.images / (forward.flops / forward.images)
    assert 8 < ratio < 16  # there and back is 3, once more, and the way back of that
    config.distilled.datm.syn_steps = 7
    changed = stages(config)["matching (datm)"]
    assert (changed.steps, changed.flops) == (30 * 7, step.flops)


# --- Memory -------------------------------------------------------------------------


def conv_weights(width, classes=10, depth=1, side=8):
    """Kernels, biases and batch norm with its statistics, and the classifier."""
    kernels = 9 * (1 + (depth - 1) * width) * width
    features = (side // 2**depth) ** 2 * width
    return kernels + depth * 5 * width + (features + 1) * classes


def test_a_recovery_needs_images_with_their_optimizer_and_all_teachers():
    config = digits.get_config("distill=gvbsm,ipc=2,teacher=conv1")
    config.teacher.update(width=8, also=("conv2-width=8",))
    found = stages(config)
    one, two = (found[f"recovery (gvbsm), conv{d}-width=8"] for d in (1, 2))
    state = tree_bytes(one.arguments[0])
    # Images of all ten classes, and two moments of Adam at least.
    assert state >= 3 * 4 * 20 * 8 * 8
    for stage, other in ((one, two), (two, one)):
        assert stage.resident == tree_bytes(other.arguments[1])
        assert stage.arguments[0] == one.arguments[0]
    assert tree_bytes(one.arguments[1]) > 4 * conv_weights(8)
    arguments, working = one.memory
    # XLA drops those that are not used.
    assert 0.9 < arguments / tree_bytes(one.arguments) <= 1
    # The way back needs what the convolution made of each of 20 images.
    assert working > 4 * 20 * 8 * 8 * 8


def test_the_memory_of_trajectory_matching_is_that_of_all_its_steps():
    config = digits.get_config("distill=datm,ipc=1,student=conv1")
    config.distilled.datm.update(width=8, experts=2, epochs=25, syn_steps=9)
    found = stages(config)
    step = found["matching (datm)"]
    assert step.arguments[-1].shape == (1, 10)
    assert step.whole[-1].shape == (9, 10)
    experts = found["training of experts (datm)"]
    assert experts.arguments[1].images.dtype == np.float32
    assert tree_bytes(experts.arguments[1].images) == 4 * 1_437 * 8 * 8


@pytest.mark.slow
def test_memory_of_trajectory_matching_grows_by_the_weights_of_each_step():
    config = digits.get_config("distill=datm,ipc=1,student=conv1")
    config.distilled.datm.update(width=32, experts=2, epochs=25)
    used = []
    for steps in (10, 110):
        config.distilled.datm.syn_steps = steps
        used.append(stages(config)["matching (datm)"].memory[1])
    (spec,) = specs.expand(config)
    weights = spec.distilled.distiller.experts_of(work(config).real.info, 0).size(
        work(config).real.info
    )
    assert used[1] - used[0] == pytest.approx(100 * 4 * weights, rel=0.3)
