"""A pack trains as the work directory does that it was made of, elsewhere."""

import subprocess
import sys

import numpy as np
import pytest

from gift_jax import specs
from gift_jax.configs import digits
from gift_jax.data import archive, real
from gift_jax.distilled import load_distilled
from gift_jax.pack import write
from gift_jax.pipeline import job
from gift_jax.runtime.errors import InputError
from gift_jax.torch_io import load_torch

SMALL = {
    "teacher.name": "conv1",
    "teacher.width": 8,
    "teacher.epochs": 2,
    "teacher.min_accuracy": 0.0,
    "distilled.ipc": 1,
    "distilled.rded.images_per_class": 4,
    "student.name": "conv1",
    "student.width": 8,
    "train.epochs": 2,
    "train.seeds": (0,),
}
# Finds no module of the packages that only TFDS sets, large sets and reports need.
WITHOUT = """
import runpy, sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages}:
            raise ModuleNotFoundError(f"{{name}} is not installed here")
sys.meta_path.insert(0, Without())
sys.argv = ["main", *sys.argv[1:]]
module = "gift_jax.experiments.paper_tables"
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
PACKAGES = ("tensorflow_datasets", "grain", "array_record", "matplotlib", "sklearn")


def small(**changes):
    config = digits.get_config("distill=rded,loss=gift")
    config.update_from_flattened_dict({**SMALL, **changes})
    return config


def command_line(**fields):
    return [f"--config.{name}={value}" for name, value in fields.items()]


@pytest.fixture(scope="module")
def packed(tmp_path_factory, one_device):
    """The directory that holds the work directory `made` and the pack `carried`."""
    directory = tmp_path_factory.mktemp("pack")
    write.pack(small(), directory / "made", directory / "carried")
    return directory


def test_a_pack_holds_the_test_images_and_what_students_are_trained_on(packed):
    folder, data = packed / "carried", real.load_dataset("digits")
    again = real.load_dataset("digits", data_dir=folder / "real.npz")
    np.testing.assert_array_equal(again.test.all_images(), data.test.all_images())
    np.testing.assert_array_equal(again.test.labels, data.test.labels)
    (made,) = (packed / "made" / "distilled").glob("rded*")
    distilled = load_distilled(folder / "distilled")
    assert distilled.fingerprint == load_distilled(made).fingerprint


def test_the_paper_s_rows_of_a_pack_are_those_of_the_work_directory(packed, one_device):
    (expected,) = job.run_job(small(), packed / "made")
    done = subprocess.run(
        [
            *(sys.executable, "-c", WITHOUT.format(packages=PACKAGES)),
            "--config=gift_jax:digits",
            "--workdir=trained",
            *command_line(**SMALL),
            "--config.loss.name=gift",
            "--config.optimizer.name=adamw",
            "--config.tuning.enabled=False",
            "--flagfile=carried/config.flags",
        ],
        cwd=packed,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    config = small(
        **{
            "dataset.data_dir": str(packed / "carried" / "real.npz"),
            "distilled.path": str(packed / "carried" / "distilled"),
            "teacher.checkpoint": str(packed / "carried" / "teacher.pth"),
        }
    )
    (row,) = job.run_job(config, packed / "trained")
    for column in ("top1_last", "top5_last", "gradient_norm_first", "teacher_top1"):
        assert row[column] == pytest.approx(expected[column], rel=1e-6), column
    assert row["distilled_fingerprint"] == expected["distilled_fingerprint"]


def flags_of(folder):
    lines = (folder / write.FLAGS_FILE).read_text().splitlines()
    return dict(line.removeprefix("--config.").split("=", 1) for line in lines)


def test_a_teacher_is_built_anew_in_a_config_with_other_options(packed, tmp_path):
    """`conv1` is of width 8 there, which is what its name leaves out here."""
    config = small(
        **{
            "teacher.name": "conv1-width=128",
            "teacher.dtype": "bfloat16",
            "teacher.epochs": 1,
            "distilled.name": "random",
        }
    )
    write.pack(config, tmp_path / "made", tmp_path / "out")
    flags, section = flags_of(tmp_path / "out"), small().teacher
    section.update(name=flags["teacher.name"], dtype=flags["teacher.dtype"])
    network = specs.network.NetworkSpec.from_section(section, section.name)
    assert dict(network.options)["width"] == 128
    assert network.dtype == "bfloat16"
    state = load_torch(tmp_path / "out" / "teacher.pth")["model"]
    assert state["classifier.weight"].shape == (10, 128 * 16)


def test_rates_are_tuned_on_images_that_were_held_out(packed, tmp_path):
    held_out = {"tuning.enabled": True, "tuning.validation_images": 40}
    write.pack(small(**held_out), tmp_path / "made", tmp_path / "out")
    whole = real.load_dataset("digits", validation_images=40)
    again = real.load_dataset("digits", data_dir=tmp_path / "out" / "real.npz")
    np.testing.assert_array_equal(
        again.train.all_images(), whole.validation.all_images()
    )
    assert flags_of(tmp_path / "out")["tuning.validation_images"] == "39"


def test_a_pack_whose_teacher_has_seen_all_does_not_tune(packed):
    flags = flags_of(packed / "carried")
    assert flags["tuning.validation_images"] == "0"
    flags = {"tuning.enabled": True, "tuning.validation_images": 0}
    with pytest.raises(InputError, match=r"tuning\.validation_images is 0"):
        specs.expand(small(**flags))


def test_a_teacher_s_own_transform_is_packed(packed, tmp_path):
    weights = str(packed / "carried" / "teacher.pth")
    changes = {"teacher.checkpoint": weights, "teacher.resize": 10, "teacher.crop": 8}
    changes |= {"teacher.transform_views": True, "distilled.name": "random"}
    write.pack(small(**changes), tmp_path / "made", tmp_path / "out")
    flags = (tmp_path / "out" / write.FLAGS_FILE).read_text().splitlines()
    for flag in ("resize=10", "crop=8", "transform_views=True"):
        assert f"--config.teacher.{flag}" in flags
    again = load_torch(tmp_path / "out" / "teacher.pth")["model"]
    for name, array in load_torch(weights)["model"].items():
        np.testing.assert_array_equal(again[name], array)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"distilled.name": "rded+random"},
            "several real datasets, teachers, distilled datasets or seeds",
        ),
        ({"variants": ("seed=0", "seed=1")}, "distilled datasets or seeds"),
        ({"teacher.also": ("conv2",)}, "is not one network of this project"),
    ],
)
def test_what_is_no_single_pack_is_refused(packed, changes, message, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match=message):
        write.pack(small(**changes), packed / "made", out)
    assert not out.exists()


def test_teachers_of_steps_are_not_trained_on_the_few_images_of_a_pack(tmp_path):
    changes = {"continual.steps": 5, "continual.teachers": "retrained"}
    with pytest.raises(InputError, match=r"teachers that are trained at every step"):
        write.pack(small(**changes), tmp_path / "made", tmp_path / "out")


def test_a_pack_is_not_overwritten(packed):
    with pytest.raises(FileExistsError, match="carried exists already"):
        write.pack(small(), packed / "made", packed / "carried")


def test_images_of_no_known_dataset_are_named_by_their_place(tmp_path, one_device):
    data = real.load_dataset("digits")
    archive.write(tmp_path / "own.npz", {"train": data.train, "test": data.test})
    changes = {"dataset.name": f"npz:{tmp_path}/own.npz", "distilled.name": "random"}
    changes |= {"relabel.source": "hard", "loss.name": "ce"}
    write.pack(small(**changes), tmp_path / "made", tmp_path / "out")
    flags = (tmp_path / "out" / write.FLAGS_FILE).read_text().splitlines()
    assert "--config.dataset.name=npz:out/real.npz" in flags
    assert not any("teacher" in flag for flag in flags)
    assert "--config.relabel.source=hard" in flags  # another would train a teacher
    stored = load_distilled(tmp_path / "out" / "distilled")
    assert stored.metadata.dataset == "npz:out/real.npz"
