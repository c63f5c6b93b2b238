"""The transform of a teacher's evaluation, against Pillow's."""

import jax
import numpy as np
import pytest
from PIL import Image

from gift_jax.runtime.errors import InputError
from gift_jax.teachers import CallableTeacher, Transform, TransformedTeacher


def pixels(count=2, side=9, channels=3):
    rng = np.random.default_rng(0)
    return rng.uniform(size=(count, side, side, channels)).astype(np.float32)


def by_pillow(images, resize, crop):
    """Resize and CenterCrop as torchvision does them on images of floats."""
    start = round((resize - crop) / 2)  # torchvision/transforms/functional.py
    box = (start, start, start + crop, start + crop)
    size = (resize, resize)
    return np.stack(
        [
            [
                np.asarray(
                    Image.fromarray(channel).resize(size, Image.BILINEAR).crop(box)
                )
                for channel in image.transpose(2, 0, 1)
            ]
            for image in images
        ]
    ).transpose(0, 2, 3, 1)


@pytest.mark.parametrize(("resize", "crop"), [(12, 9), (11, 8), (5, 4), (9, 6)])
def test_it_is_torchvision_s(resize, crop):
    found = Transform(resize, crop).apply(pixels())
    np.testing.assert_allclose(found, by_pillow(pixels(), resize, crop), atol=1e-5)


def test_each_part_alone_and_none():
    assert Transform(12, None).apply(pixels()).shape == (2, 12, 12, 3)
    np.testing.assert_array_equal(
        Transform(None, 5).apply(pixels()), pixels()[:, 2:7, 2:7]
    )
    assert Transform(36, 32) and not Transform(None, None)
    sides = [Transform(*parts).side(8) for parts in ((12, 9), (12, None), (None, None))]
    assert sides == [9, 12, 8]


@pytest.mark.parametrize(
    ("resize", "crop", "message"),
    [
        (0, None, r"teacher\.resize is 0"),
        (None, -1, r"teacher\.crop is -1"),
        (8, 9, r"teacher\.crop is 9, which does not lie in .* teacher\.resize 8"),
    ],
)
def test_mistakes(resize, crop, message):
    with pytest.raises(InputError, match=message):
        Transform(resize, crop)


def test_a_crop_larger_than_the_images_is_refused():
    with pytest.raises(InputError, match=r"crop is 10, which .* of side 9"):
        Transform(None, 10).apply(pixels())


def test_a_teacher_behind_it_sees_what_it_makes():
    def function(images):
        return images.mean((1, 2))

    teacher = CallableTeacher("mine", function, (9, 9, 3), 3)
    behind = TransformedTeacher(teacher, Transform(12, 6))
    expected = by_pillow(pixels(), 12, 6).mean((1, 2))
    np.testing.assert_allclose(behind.logits(pixels()), expected, atol=1e-5)
    assert behind.name == "mine"
    other = TransformedTeacher(teacher, Transform(12, 7))
    assert len({teacher.fingerprint, behind.fingerprint, other.fingerprint}) == 3


def test_it_compiles_once():
    transform = Transform(12, 6)
    transform.apply(pixels())
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.image, "resize", None)  # which tracing again would call
        Transform(12, 6).apply(pixels())
