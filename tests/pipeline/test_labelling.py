"""Where soft labels come from: the teacher, the dataset, or an FKD folder."""

import dataclasses
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax import augment, losses, models, optimizers, specs
from gift_jax.configs import digits
from gift_jax.data import preprocess
from gift_jax.distilled.dataset import DistilledDataset, Metadata
from gift_jax.pipeline import labelling
from gift_jax.pipeline.context import Job
from gift_jax.pipeline.distilled import JobDistilled
from gift_jax.pipeline.teacher import JobTeacher
from gift_jax.soft_labels import relabel, views
from gift_jax.soft_labels.base import prefetched
from gift_jax.soft_labels.codecs import get_codec
from gift_jax.teachers import FlaxTeacher, TeacherError
from gift_jax.train.fit import fit
from gift_jax.train.step import create_train_state

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"
NORMALIZATION = preprocess.Normalization((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


@pytest.fixture(scope="module")
def stored():
    """Ten images of five classes, the views of them that were labelled, the labels."""
    with np.load(FIXTURES / "data_fkd_cutmix.npz") as arrays:
        return dict(arrays)


def make_dataset(images, labels, soft_labels=None) -> DistilledDataset:
    return DistilledDataset(
        images=images.astype(np.float32) / np.float32(255),
        labels=labels,
        soft_labels=soft_labels,
        metadata=Metadata("tfds:five", 5, "sre2l", "test"),
        preprocess=NORMALIZATION,
    )


def make_job(tmp_path, **relabel) -> Job:
    config = digits.get_config()
    config.augment.diffaug = ""
    config.train.epochs = 3
    config.distilled.name = "random"
    config.teacher.min_accuracy = 0.0
    config.relabel.update(relabel)
    (spec,) = specs.expand(config)
    return Job(spec, tmp_path, data=None, devices=tuple(jax.devices()[:1]))


def labelled_by_fkd(tmp_path, images, labels):
    job = make_job(tmp_path, source="fkd", path=str(FIXTURES / "data_fkd_cutmix"))
    return make_soft_labels(job, make_dataset(images, labels))


def make_soft_labels(job, dataset):
    made = JobDistilled("sre2l_ipc2", dataset)
    return labelling.make_soft_labels(job, made, None)


def agreeing_labels(stored):
    """Hard labels that the FKD labels agree with: those of the first view."""
    return stored["logits"][0].argmax(axis=1)


def test_fkd_labels_are_trained_on_with_the_views_they_were_made_for(stored, tmp_path):
    hard_labels = agreeing_labels(stored)
    labelled = labelled_by_fkd(tmp_path, stored["images"], hard_labels)
    assert labelled.columns["views"] == 2
    assert labelled.columns["soft_labels"] == "fkd"

    model = models.create_model(
        "conv1", num_classes=5, image_size=16, width=4, norm="none"
    )
    key = jax.random.key(0)
    sgd = optimizers.OptimizerSpec("sgd", 0.0)
    state = create_train_state(
        model,
        sgd,
        (16, 16, 3),
        epochs=3,
        steps_per_epoch=1,
        init_key=key,
        dropout_key=jax.random.key(1),  # donated
    )
    variables = jax.device_get(state.variables)
    seen = []
    fit(
        state,
        labelled.data,
        labelled.soft_labels,
        loss=losses.get_loss("soft_ce"),
        view_images=labelled.view_images,
        epochs=3,
        batch_size=10,
        order_key=key,
        devices=jax.devices()[:1],
        on_epoch=lambda record, metrics: seen.append(metrics["loss"]),
    )
    # The third epoch sees the first view again.
    for epoch, view in enumerate((0, 1, 0)):
        inputs = NORMALIZATION.apply(stored["views"][view].astype(np.float32) / 255)
        expected = losses.get_loss("soft_ce")(
            model.apply(variables, inputs, train=False),
            jnp.asarray(stored["logits"][view]),
            jnp.asarray(hard_labels),
        ).mean()
        # The stored views are rounded to 8 bits, those replayed are not.
        assert seen[epoch] == pytest.approx(float(expected), abs=2e-3)
    assert abs(seen[0] - seen[1]) > 4e-3


def test_fkd_labels_of_another_order_are_refused(stored, tmp_path):
    # Of the first view one label in ten is class 2; chance is one in five.
    wrong = np.full(10, 2)
    with pytest.raises(TeacherError, match="order of another sampler"):
        labelled_by_fkd(tmp_path, stored["images"], wrong)


def test_fkd_labels_of_another_number_of_images_are_refused(stored, tmp_path):
    with pytest.raises(ValueError, match=r"\(10, 5\).*\(8, 5\).*same IPC"):
        labelled_by_fkd(tmp_path, stored["images"][:8], agreeing_labels(stored)[:8])


def test_own_soft_labels_are_those_of_every_view(stored, tmp_path):
    own = np.random.default_rng(0).normal(size=(10, 5)).astype(np.float32)
    dataset = make_dataset(stored["images"], np.arange(10) % 5, own)
    labelled = make_soft_labels(make_job(tmp_path, source="dataset", views=7), dataset)
    assert labelled.columns["views"] == 7
    for number in (0, 6):
        view = labelled.soft_labels.start_reading(number)()
        np.testing.assert_array_equal(view.logits, own)
        assert view.number == number


def test_absent_soft_labels_are_said(stored, tmp_path):
    dataset = make_dataset(stored["images"], np.arange(10) % 5)
    with pytest.raises(ValueError, match="no soft labels of its own"):
        make_soft_labels(make_job(tmp_path, source="dataset"), dataset)


def test_eight_bit_images_stay_eight_bit_and_give_the_same_inputs(stored):
    dataset = make_dataset(stored["images"], np.arange(10) % 5)
    data, normalization = views.train_data(dataset, seed=0)
    assert data.images.dtype == jnp.uint8
    inputs = views.AugmentedViews(
        spec=augment.AugmentSpec(), normalization=normalization
    ).images(data, 0, jnp.arange(10))
    np.testing.assert_allclose(inputs, dataset.inputs(), atol=1e-6)


def test_other_images_are_kept_as_inputs(stored):
    images = stored["images"].astype(np.float32) + 0.3
    dataset = make_dataset(images, np.arange(10) % 5)
    data, normalization = views.train_data(dataset, seed=0)
    assert normalization is None
    np.testing.assert_array_equal(data.images, dataset.inputs())


# --- Formats, and places to store at ------------------------------------------------


@pytest.fixture(scope="module")
def untrained():
    model = models.create_model("conv1", num_classes=5, image_size=16, width=4)
    variables = models.init_variables(
        model, jax.random.key(1), image_size=16, channels=3
    )
    teacher = FlaxTeacher("conv1", model, variables, NORMALIZATION)
    return JobTeacher(teacher, teacher, 20.0)


@pytest.fixture
def relabelled(stored, untrained, tmp_path):
    def relabelled(**relabel):
        job = make_job(tmp_path, batch_size=10, **relabel)
        dataset = make_dataset(stored["images"], np.arange(10) % 5)
        made = JobDistilled("sre2l_ipc2", dataset)
        return labelling.make_soft_labels(job, made, untrained)

    return relabelled


def logits_of(labelled):
    reader = prefetched(labelled.soft_labels.start_reading, range(3))
    return np.stack([view.logits for view in reader])


@pytest.mark.parametrize(
    ("name", "row_bytes"), [("float16", 10), ("int8", 9), ("top2", 10)]
)
def test_formats_lie_beside_each_other_and_are_said(
    relabelled, tmp_path, name, row_bytes
):
    exact, labelled = relabelled(), relabelled(format=name)
    assert labelled.columns["label_format"] == name
    assert labelled.columns["soft_label_bytes"] == 3 * 10 * row_bytes
    assert (labelled.fingerprint == exact.fingerprint) == (name == "float16")
    codec = get_codec(name)
    directory = tmp_path / "soft_labels" / labelled.columns["soft_labels_dir"]
    assert directory.name.endswith("_v3" if name == "float16" else f"_v3_{name}")
    assert labelling.open_labels(directory).codec == codec
    online = relabelled(source="online", format=name)
    assert online.columns["label_format"] == name
    assert online.columns["soft_label_bytes"] is None
    np.testing.assert_array_equal(logits_of(labelled), logits_of(online))
    # A step of int8 is a 255th of the range; top-k keeps the largest.
    lost = logits_of(labelled).astype(float) - logits_of(exact).astype(float)
    largest = logits_of(exact).argmax(axis=-1)
    np.testing.assert_array_equal(logits_of(labelled).argmax(axis=-1), largest)
    bound = {"float16": 0, "int8": np.ptp(logits_of(exact)) / 255, "top2": np.inf}
    assert np.abs(lost).max() <= bound[name]


def test_fixed_labels_are_those_of_the_images_as_they_are(
    relabelled, stored, untrained, tmp_path
):
    labelled = relabelled(source="fixed")
    dataset = make_dataset(stored["images"], np.arange(10) % 5)
    expected = untrained.teacher.logits(jnp.asarray(dataset.pixels()))
    for view in prefetched(labelled.soft_labels.start_reading, range(3)):
        np.testing.assert_allclose(view.logits, expected, atol=2e-2, rtol=2e-3)
    numbers = [
        int(v.number) for v in prefetched(labelled.soft_labels.start_reading, range(3))
    ]
    assert numbers == [0, 1, 2]
    # One label an image is stored, whatever is done to images and however often.
    assert labelled.columns["soft_label_bytes"] == 10 * 10
    other = relabelled(source="fixed", views=2)
    assert other.columns["soft_labels_dir"] == labelled.columns["soft_labels_dir"]
    assert other.fingerprint != labelled.fingerprint
    assert relabelled(source="fixed", format="int8").columns["soft_label_bytes"] == 90


def test_hard_labels_need_no_teacher(stored, tmp_path):
    dataset = make_dataset(stored["images"], np.arange(10) % 5)
    config = digits.get_config(
        "distill=random,relabel.source=hard,loss=ce,epochs=3,relabel.views=2"
    )
    (spec,) = specs.expand(config)
    job = Job(spec, tmp_path, data=None, devices=tuple(jax.devices()[:1]))
    labelled = make_soft_labels(job, dataset)
    assert labelled.columns["soft_labels"] == "hard"
    assert labelled.columns["views"] == 2
    assert labelled.columns["teacher"] is labelled.columns["soft_label_bytes"] is None
    assert labelled.soft_labels.start_reading(1)().logits is None


def test_soft_labels_are_shared_by_trainings_with_and_without_hard_epochs(relabelled):
    plain = relabelled(views=2)
    hald = relabelled(views=2, hard_epochs=1, hard_loss="ce-smoothing=0.8")
    assert hald.columns["soft_labels_dir"] == plain.columns["soft_labels_dir"]
    assert hald.columns["views"] == 2
    assert (
        hald.columns["soft_labels"] == "store-hard_epochs=1-hard_loss=ce-smoothing=0.8"
    )
    assert (
        len({plain.fingerprint, hald.fingerprint}) == len({plain.name, hald.name}) == 2
    )


def test_labels_are_stored_elsewhere_and_shared(relabelled, tmp_path, monkeypatch):
    here = relabelled()
    elsewhere = tmp_path / "disk"
    labelled = relabelled(store=str(elsewhere))
    # What the labels are does not depend on where they lie.
    assert labelled.fingerprint == here.fingerprint
    np.testing.assert_array_equal(logits_of(labelled), logits_of(here))
    (array,) = elsewhere.iterdir()
    name = labelled.columns["soft_labels_dir"]
    assert array.name.startswith(f"{name}-")
    assert labelled.soft_labels.location == str(array)
    directory = tmp_path / "soft_labels" / name
    assert labelling.open_labels(directory).location == str(array)

    # Another work directory finds them; another recipe has a place of its own.
    shutil.rmtree(tmp_path / "soft_labels")
    labelled_views = []
    monkeypatch.setattr(
        relabel, "label_in_batches", lambda *args: labelled_views.append(args)
    )
    np.testing.assert_array_equal(
        logits_of(relabelled(store=str(elsewhere))), logits_of(labelled)
    )
    assert not labelled_views
    monkeypatch.undo()
    relabelled(store=str(elsewhere), format="int8")
    assert len(list(elsewhere.iterdir())) == 2


def test_labels_that_are_gone_from_elsewhere_are_made_again(relabelled, tmp_path):
    elsewhere = tmp_path / "disk"
    expected = logits_of(relabelled(store=str(elsewhere)))
    shutil.rmtree(elsewhere)
    np.testing.assert_array_equal(logits_of(relabelled(store=str(elsewhere))), expected)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", "int4", r"unknown relabel\.format 'int4' \(did you mean 'int8'"),
        ("format", "top20", "'top20' is for 20 to 65536 classes, but there are 10"),
        ("store", "ftp://host/labels", "expected a local path, gs://"),
        (
            "store",
            "/proc/labels",
            "is /proc/labels, which cannot be written to: No such",
        ),
    ],
)
def test_what_cannot_be_stored_is_found_before_any_work(field, value, message):
    relabel = make_job(None).spec.relabel
    with pytest.raises(ValueError, match=message):
        changed = dataclasses.replace(relabel, **{field: value})
        labelling.check_storage(changed, num_classes=10)
    labelling.check_storage(relabel, num_classes=10)
