"""The text of `gift_jax.plan`."""

import re

import jax

from gift_jax.configs import common
from gift_jax.plan.text import report
from tests.plan.planned import work


def test_the_report_needs_no_data_and_leaves_no_array():
    config = common.get_config("tiny_imagenet")
    config.teacher.checkpoint = "weights.pth"
    config.student.name = "conv2"
    config.student.width = 8
    config.augment.diffaug = "flip"  # compiled much faster than the whole
    config.train.seeds = (0, 1)
    config.train.evaluators = "accuracy+builtins:print"
    before = jax.live_arrays()
    text = report(work(config), utilization=0.3, least_step=1e-3)
    # Those of other tests may go meanwhile.
    assert {id(a) for a in jax.live_arrays()} <= {id(a) for a in before}
    assert "tiny_imagenet: 200 classes, 64x64x3, 10,000 test images" in text
    # Convolutions, their biases and batch norm, and the classifier.
    weights = 9 * (3 + 8) * 8 + 3 * 2 * 8 + (16 * 16 * 8 + 1) * 200
    assert f"student     conv2-width=8: {weights:,} parameters, float32" in text
    assert "soft labels 800 MB in float16" in text
    left_out = "not counted, as it is not known what it does: the evaluator builtins"
    assert text.count("not counted") == text.count(left_out) == 1
    assert "an estimate, assuming 30% of 275 TFLOP/s" in text
    assert "while conv2-width=8 trains, one of 2 at once\n" in text
    assert re.search(r"\d% of 32 GB$", text)
