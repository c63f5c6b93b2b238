"""Trainings without soft labels, and with them before and after."""

import numpy as np
import pytest

from gift_jax.soft_labels.base import prefetched
from gift_jax.soft_labels.fixed import FixedSoftLabels
from gift_jax.soft_labels.hard import HardLabels, SoftHardSoft


def test_hard_labels_are_views_without_logits():
    views = list(prefetched(HardLabels(views=3).start_reading, [0, 2, 1]))
    assert [int(view.number) for view in views] == [0, 2, 1]
    assert all(view.logits is None for view in views)


@pytest.mark.parametrize(
    ("soft_epochs", "hard_epochs"), [(100, 200), (5, 2), (1, 4), (2, 0)]
)
def test_the_schedule_is_halds(soft_epochs, hard_epochs):
    # Setting S6: [soft // 2, hard, soft - soft // 2] epochs.
    lengths = [soft_epochs // 2, hard_epochs, soft_epochs - soft_epochs // 2]
    expected = np.repeat([True, False, True], lengths)
    logits = np.zeros((soft_epochs, 4, 3), np.float16)
    logits += np.arange(soft_epochs)[:, None, None]
    epochs = soft_epochs + hard_epochs
    labels = SoftHardSoft(FixedSoftLabels(logits, soft_epochs), epochs, hard_epochs)
    assert labels.views == epochs
    views = list(prefetched(labels.start_reading, range(epochs)))
    is_soft = np.array([view.logits is not None for view in views])
    np.testing.assert_array_equal(is_soft, expected)
    # Each soft label is used once, with its own view; hard epochs have views of theirs.
    numbers = np.array([int(view.number) for view in views])
    np.testing.assert_array_equal(numbers[is_soft], np.arange(soft_epochs))
    assert sorted(numbers) == list(range(epochs))
    for view in views:
        if view.logits is not None:
            assert (view.logits == int(view.number)).all()


def test_few_soft_labels_are_repeated():
    logits = np.zeros((2, 4, 3), np.float16)
    labels = SoftHardSoft(FixedSoftLabels(logits, 2), epochs=8, hard_epochs=3)
    numbers = [int(labels.start_reading(epoch)().number) for epoch in range(8)]
    assert numbers == [0, 1, 2, 3, 4, 0, 1, 0]
