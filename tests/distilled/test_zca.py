import pathlib

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from gift_jax.data import preprocess
from gift_jax.distilled import zca

FIXTURE = np.load(pathlib.Path(__file__).parents[1] / "fixtures" / "data_zca.npz")
IMAGES = FIXTURE["images"]  # (150, 4, 4, 3) uint8
PIXELS = IMAGES.astype(np.float32) / 255
STATISTICS = preprocess.Normalization((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))

FITS = {
    "kornia": zca.fit_kornia,
    "rfad": zca.fit_rfad,
    "frepo": lambda images: zca.fit_frepo(images, STATISTICS),
}


def channels_first(images):
    return np.moveaxis(images, -1, 1)


@pytest.mark.parametrize("name", ["kornia", "rfad"])
def test_equals_the_projects_own_code(name):
    """Values of kornia 0.9.0 and of RFAD's data.py, in PyTorch (data_torch.py)."""
    expected = FIXTURE[name]
    whitened = FITS[name](IMAGES).apply(PIXELS[: len(expected)])
    np.testing.assert_allclose(channels_first(whitened), expected, atol=2e-5)


def frepo_reference(images, mean, std, zca_reg=0.1):
    """lib/dataset/ops.py of FRePo, transcribed to NumPy, in float64."""
    x = ((images / 255 - np.array(mean)) / np.array(std)).reshape(len(images), -1)
    zca_mean = x.mean(axis=0)
    cov = (x - zca_mean).T @ (x - zca_mean) / len(x)
    reg_amount = zca_reg * np.trace(cov) / cov.shape[0]
    u, s, _ = np.linalg.svd(cov + reg_amount * np.eye(cov.shape[0]))
    transform = np.einsum("ij,j,kj->ik", u, s**-0.5, u)
    return ((x - zca_mean) @ transform).reshape(images.shape)


def test_frepo_equals_its_formula():
    expected = frepo_reference(IMAGES, STATISTICS.mean, STATISTICS.std)
    whitened = FITS["frepo"](IMAGES).apply(PIXELS)
    np.testing.assert_allclose(whitened, expected, atol=2e-5)


def kip_reference(images, zca_reg=0.1):
    """`_get_preprocess_op` of KIP's notebook, transcribed to NumPy, in float64."""
    images = images.astype(np.float64)
    axes = (0, 1, 2)
    x = (images - images.mean(axes)) / images.std(axes)
    x = x.reshape(len(images), -1)
    x = x - x.mean(1)[:, None]
    x = x / np.linalg.norm(x, axis=1)[:, None]
    cov = x.T @ x / len(x)
    reg_amount = zca_reg * np.trace(cov) / cov.shape[0]
    u, s, _ = np.linalg.svd(cov + reg_amount * np.eye(cov.shape[0]))
    return (x @ np.einsum("ij,j,kj->ik", u, s**-0.5, u)).reshape(images.shape)


def test_kip_equals_its_formula():
    whitening = zca.fit_kip(IMAGES)
    whitened = whitening.apply(PIXELS)
    # Their standard deviation is over N, ours over N - 1: of 2,400 pixels here.
    np.testing.assert_allclose(whitened, kip_reference(IMAGES), atol=1e-4)
    np.testing.assert_allclose(jax.jit(whitening.apply)(PIXELS), whitened, atol=1e-5)


def test_what_kip_takes_away_is_made_up_for():
    """Contrast and brightness of an image are lost: the same for all that differ so."""
    whitening = zca.fit_kip(IMAGES)
    back = whitening.invert(whitening.apply(PIXELS))
    other = whitening.normalization.invert(whitening.normalization.apply(PIXELS) / 2)
    np.testing.assert_allclose(
        whitening.invert(whitening.apply(other)), back, atol=1e-5
    )
    again = whitening.apply(back)
    np.testing.assert_allclose(again, whitening.apply(PIXELS), atol=1e-4)
    flat = whitening.normalization.apply(back).reshape(len(back), -1)
    np.testing.assert_allclose(
        np.linalg.norm(flat, axis=1), whitening.length, rtol=1e-5
    )
    assert np.isfinite(whitening.apply(np.full((1, 4, 4, 3), 0.5, np.float32))).all()


@pytest.mark.parametrize("name", FITS)
def test_inverse_undoes_it(name):
    whitening = FITS[name](IMAGES)
    there_and_back = whitening.invert(whitening.apply(PIXELS))
    np.testing.assert_allclose(there_and_back, PIXELS, atol=2e-6)
    identity = whitening.matrix @ whitening.inverse
    np.testing.assert_allclose(identity, np.eye(len(identity)), atol=2e-5)
    np.testing.assert_allclose(whitening.matrix, whitening.matrix.T, atol=1e-5)


@pytest.mark.parametrize("name", FITS)
def test_whitens_its_train_images(name):
    """In each eigendirection the variance is l / (l + ridge): at most one."""
    whitening = FITS[name](IMAGES)
    flat = whitening.apply(PIXELS).reshape(len(IMAGES), -1).astype(np.float64)
    moment = flat.T @ flat / len(flat)
    before = whitening.normalization.apply(PIXELS).reshape(len(IMAGES), -1)
    before = before.astype(np.float64) - whitening.center
    moment_before = before.T @ before / len(before)
    ridge = 0.1 if name == "kornia" else 0.1 * np.trace(moment_before) / len(moment)
    scale = 150 / 149 if name == "kornia" else 1  # kornia divides by N - 1
    eigenvalues = np.linalg.eigvalsh(moment_before)
    expected = np.sort(eigenvalues / (scale * eigenvalues + ridge))
    np.testing.assert_allclose(np.linalg.eigvalsh(moment), expected, atol=1e-4)
    assert expected.max() > 0.6


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("name", FITS)
def test_does_not_depend_on_the_order_of_images(name, seed):
    order = np.random.default_rng(seed).permutation(len(IMAGES))
    np.testing.assert_allclose(
        FITS[name](IMAGES[order]).matrix, FITS[name](IMAGES).matrix, atol=1e-4
    )


@pytest.mark.parametrize("name", FITS)
def test_permuting_pixels_permutes_the_whitened_image(name):
    """So that fitting in (H, W, C) order is fitting in (C, H, W) order."""
    turned = IMAGES[:, ::-1].transpose(0, 2, 1, 3)
    whitened = FITS[name](IMAGES).apply(PIXELS)
    turned_whitened = FITS[name](turned).apply(turned.astype(np.float32) / 255)
    np.testing.assert_allclose(
        turned_whitened, whitened[:, ::-1].transpose(0, 2, 1, 3), atol=2e-5
    )


def test_conventions_differ():
    results = [fit(IMAGES).apply(PIXELS[:1]) for fit in FITS.values()]
    for one in range(3):
        for other in range(one):
            assert np.abs(results[one] - results[other]).max() > 0.05


def test_constant_pixels_do_no_harm():
    images = IMAGES.copy()
    images[:, 0, 0] = 255
    whitening = zca.fit_kornia(images)
    assert np.isfinite(whitening.matrix).all()
    assert np.abs(whitening.apply(images / 255)[:, 0, 0]).max() < 1e-5


def test_refuses_floats_and_too_few_images():
    with pytest.raises(ValueError, match="uint8"):
        zca.fit_kornia(PIXELS)
    for images in (IMAGES[:47], IMAGES[:0], IMAGES[0]):
        with pytest.raises(ValueError, match="whole train split"):
            zca.fit_kornia(images)


def test_kip_s_images_come_back_at_their_mean_length():
    standardised = zca.fit_rfad(IMAGES).normalization.apply(PIXELS)
    flat = np.float64(standardised).reshape(len(IMAGES), -1)
    expected = np.linalg.norm(flat - flat.mean(1, keepdims=True), axis=1).mean()
    assert zca.fit_kip(IMAGES).length == pytest.approx(expected, rel=1e-5)


def test_kip_s_images_have_that_length_wherever_they_come_from():
    """Learnt images are not of the length that whitening gives to real ones."""
    whitening = zca.fit_kip(IMAGES)
    inputs = whitening.apply(PIXELS)
    np.testing.assert_allclose(
        whitening.invert(2 * inputs), whitening.invert(inputs), atol=1e-5
    )
