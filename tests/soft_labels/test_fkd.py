import json
import pathlib
import shutil

import numpy as np
import pytest

from gift_jax.soft_labels import fkd
from gift_jax.soft_labels.base import prefetched
from gift_jax.torch_io import torch_files

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"
# Written with the steps of SRe2L (no indices) and of G-VBSM (indices), in PyTorch.
FOLDERS = ["data_fkd_cutmix", "data_fkd_mixup"]


def expected(name):
    with np.load(FIXTURES / f"{name}.npz") as stored:
        return dict(stored)


@pytest.mark.parametrize("name", FOLDERS)
def test_logits_belong_to_their_images(name):
    labels = fkd.FkdLabels(FIXTURES / name)
    stored = expected(name)["logits"]
    assert (labels.views, labels.num_images) == stored.shape[:2]
    for view in range(labels.views):
        np.testing.assert_array_equal(labels.read(view).logits, stored[view])


@pytest.mark.parametrize("name", FOLDERS)
def test_replays_what_the_teacher_saw(name):
    """To the 8 bits that Pillow rounds each of its two passes to."""
    stored = expected(name)
    images = stored["images"].astype(np.float32) / 255
    labels = fkd.FkdLabels(FIXTURES / name)
    for number in range(labels.views):
        view = labels.read(number)
        assert view.mix == name.removeprefix("data_fkd_")
        replayed = np.asarray(fkd.replay(images, view, np.arange(len(images))))
        difference = np.abs(replayed - stored["views"][number] / 255)
        # Mixup views are rounded once more, to be stored.
        assert difference.max() < 1.6 / 255
        assert difference.mean() < 0.4 / 255


def test_a_replayed_view_does_not_depend_on_its_batch():
    stored = expected("data_fkd_cutmix")
    images = stored["images"].astype(np.float32) / 255
    view = fkd.FkdLabels(FIXTURES / "data_fkd_cutmix").read(1)
    everything = fkd.replay(images, view, np.arange(10))
    some = fkd.replay(images, view, np.array([7, 2]))
    np.testing.assert_allclose(some, everything[np.array([7, 2])], atol=1e-6)


def test_replaying_commutes_with_normalisation():
    stored = expected("data_fkd_mixup")
    images = stored["images"].astype(np.float32) / 255
    view = fkd.FkdLabels(FIXTURES / "data_fkd_mixup").read(0)
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.25, 0.3])
    indices = np.arange(10)
    pixels = np.asarray(fkd.replay(images, view, indices))
    inputs = fkd.replay((images - mean) / std, view, indices)
    np.testing.assert_allclose(inputs, (pixels - mean) / std, atol=1e-5)


@pytest.mark.parametrize("size", [1, 20, 101])
def test_sampler_order_is_pytorchs(size):
    orders = json.loads((FIXTURES / "data_sampler.json").read_text())[str(size)]
    for epoch, order in enumerate(orders):
        assert fkd.sampler_order(size, epoch).tolist() == order


def test_is_a_source_of_soft_labels():
    labels = fkd.FkdLabels(FIXTURES / "data_fkd_cutmix")
    read = [view.logits for view in prefetched(labels.start_reading, [1, 0, 1])]
    stored = expected("data_fkd_cutmix")["logits"]
    np.testing.assert_array_equal(read, stored[[1, 0, 1]])


def test_agreement_tells_a_wrong_order():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 500)
    partners = rng.permutation(500)
    shown = np.where(rng.random(500) < 0.5, labels, labels[partners])
    logits = (5 * np.eye(10)[shown]).astype(np.float16)
    nothing = np.zeros(500)
    view = fkd.FkdView("mixup", nothing, nothing, partners, nothing, nothing, logits)
    assert view.agreement(labels) == 1
    assert view.agreement(rng.permutation(labels)) < 0.3


def edited(tmp_path, edit, batch="batch_1.tar", name="data_fkd_cutmix"):
    """A copy of a folder, with one file changed."""
    folder = tmp_path / "labels"
    shutil.copytree(FIXTURES / name, folder)
    path = folder / "epoch_1" / batch
    content = torch_files.load_torch(path)
    torch_files.save_torch(path, edit(content))
    return folder


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content[:5], r"batch_1\.tar holds 5 entries"),
        (lambda content: [*content, 1, 2], r"holds 8 entries.*EDC"),
        (lambda content: {"a": 1}, "holds dict entries"),
        (lambda content: [*content[:5], None], r"crop .* \(4, 4\), expected \(0, 4\)"),
        (lambda content: [None, *content[1:]], r"shape \(\), expected \(4, 4\)"),
        (lambda content: [content[0][:, :3], *content[1:]], r"shape \(4, 3\)"),
        (lambda content: [*content[:2], content[2] + 4, *content[3:]], "outside"),
        (lambda content: [*content[:4], None, content[5]], "differ in their mix"),
        (lambda content: [[[0.5] * 4] * 3 + [[1]], *content[1:]], "crop .* no array"),
        (lambda content: [content[0], ["a"] * 4, *content[2:]], "flips have dtype"),
        (lambda content: [*content[:2], [0.5] * 4, *content[3:]], "partners .*float64"),
        (lambda content: [*content[:3], "half", *content[4:]], "mix share have dtype"),
        (lambda content: [*content[:4], [1, 2, 3], content[5]], r"box .*shape \(3,\)"),
        (lambda content: [*content[:5], content[5] * np.nan], "logits hold NaN"),
        (lambda content: [*content[:5], np.full((4, 3), 7e4)], "beyond .* float16"),
    ],
)
def test_malformed_batches_are_refused(tmp_path, edit, message):
    labels = fkd.FkdLabels(edited(tmp_path, edit))
    with pytest.raises(ValueError, match=message) as caught:
        labels.read(1)
    assert str(labels.path) in str(caught.value)


def test_lists_and_arrays_are_the_same(tmp_path):
    def edit(content):
        as_lists = [part.tolist() for part in map(np.asarray, content)]
        return [*as_lists[:4], np.array(content[4]), as_lists[5]]

    labels = fkd.FkdLabels(edited(tmp_path, edit))
    read, stored = labels.read(1), fkd.FkdLabels(FIXTURES / FOLDERS[0]).read(1)
    for name in ("crops", "flips", "partners", "lam", "boxes", "logits"):
        np.testing.assert_array_equal(getattr(read, name), getattr(stored, name))


def test_batches_of_all_epochs_are_counted_at_once(tmp_path):
    folder = tmp_path / "labels"
    shutil.copytree(FIXTURES / "data_fkd_cutmix", folder)
    (folder / "epoch_1" / "batch_2.tar").unlink()
    with pytest.raises(
        ValueError, match="epoch_1 holds 2 batches, other epochs hold 3"
    ):
        fkd.FkdLabels(folder)


def test_missing_files_are_noticed(tmp_path):
    with pytest.raises(FileNotFoundError, match="epoch_0"):
        fkd.FkdLabels(tmp_path)
    folder = tmp_path / "labels"
    shutil.copytree(FIXTURES / "data_fkd_cutmix", folder)
    labels = fkd.FkdLabels(folder)
    (folder / "epoch_1" / "batch_2.tar").unlink()
    with pytest.raises(ValueError, match="a batch may be missing"):
        labels.read(1)
    (folder / "epoch_1" / "batch_0.tar").unlink()
    with pytest.raises(ValueError, match=r"lacks the numbers \[0\]"):
        labels.read(1)


def test_labels_of_other_images_are_refused():
    view = fkd.FkdLabels(FIXTURES / "data_fkd_cutmix").read(0)
    with pytest.raises(ValueError, match="those of 10 images, got 12"):
        fkd.replay(np.zeros((12, 16, 16, 3), np.float32), view, np.arange(2))


@pytest.mark.parametrize("shape", [(41, 41), (28, 41)])
def test_fractions_of_the_image_are_whole_pixels(shape):
    """41 * float32(k / 41) is below k for some k, and images need not be square."""
    height, width = shape
    image = np.arange(height * width, dtype=np.float32).reshape(1, *shape, 1)
    places = np.arange(height)
    zeros = np.zeros(height, np.int32)
    view = fkd.FkdView(
        mix="none",
        crops=np.float32(
            [[k / height, k / width, 1 / height, 1 / width] for k in places]
        ),
        flips=zeros.astype(bool),
        partners=zeros,
        lam=zeros.astype(np.float32),
        boxes=np.zeros((height, 4), np.int32),
        logits=np.zeros((height, 2), np.float16),
    )
    seen = fkd.replay(np.repeat(image, height, axis=0), view, places)
    np.testing.assert_array_equal(seen[:, 0, 0, 0], image[0, places, places, 0])
