"""Keys of a seed: one for every purpose."""

import itertools

import jax
import numpy as np
import pytest

from gift_jax.streams import Purpose, stream_key


def test_no_two_purposes_or_seeds_share_a_key():
    keys = [
        tuple(np.asarray(jax.random.key_data(stream_key(seed, purpose))).tolist())
        for seed, purpose in itertools.product(range(5), Purpose)
    ]
    assert len(set(keys)) == 5 * len(Purpose)


@pytest.mark.parametrize("default", ["threefry2x32", "rbg"])
def test_keys_are_those_of_earlier_versions(default):
    """Pinned: other keys would change every published result of every seed."""
    with jax.default_prng_impl(default):
        keys = [stream_key(0, purpose) for purpose in sorted(Purpose)]
    values = [int(jax.random.bits(key)) for key in keys]
    assert values == [
        3617712097,
        31327077,
        3875991361,
        1146711402,
        659940848,
        3169945449,
        3769635031,
        2040308410,
        1113194697,
        2270913636,
        1819146049,
    ]


def test_purposes_have_the_numbers_of_earlier_versions():
    """By name: two of them exchanged would give the same sorted keys."""
    assert {purpose.name: int(purpose) for purpose in Purpose} == {
        "TEACHER_INIT": 0, "TEACHER_ORDER": 1, "TEACHER_VIEWS": 2, "TEACHER_DROPOUT": 3,
        "VIEWS": 4, "STUDENT_INIT": 5, "STUDENT_ORDER": 6, "STUDENT_DROPOUT": 7,
        "DISTILLATION": 8, "EXPERT": 9, "TEACHER_LABEL_NOISE": 10,
    }  # fmt: skip
