"""The wheel, used from another folder, as one who never saw the repository does."""

import os
import shutil
import subprocess
import sys
import warnings
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import launch

_UNBUILT = shutil.ignore_patterns(
    *(".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info"),
    *("build", "dist", "site", "workdir"),
)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The sdist's content."""
    pytest.importorskip("setuptools")
    where = tmp_path_factory.mktemp("sdist")
    shutil.copytree(launch.ROOT, where / "clone", ignore=_UNBUILT)
    build = "import setuptools.build_meta as b; b.build_sdist('..')"
    command = [sys.executable, "-c", build]
    subprocess.run(command, cwd=where / "clone", check=True, capture_output=True)
    (sdist,) = where.glob("*.tar.gz")
    shutil.unpack_archive(sdist, where, filter="data")
    return where / sdist.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def installed(unpacked):
    """The wheel of the sdist, installed; the dependencies are those of the tests."""
    pip = [sys.executable, "-m", "pip"]
    options = ["-q", "--no-deps", "--no-build-isolation"]
    where = unpacked.parent
    subprocess.run([*pip, "wheel", *options, "-w", where, unpacked], check=True)
    (wheel,) = where.glob("*.whl")
    site = where / "site"
    subprocess.run([*pip, "install", *options, "-t", site, wheel], check=True)
    return site


def test_the_sdist_holds_what_its_tests_and_its_site_need(unpacked):
    tracked = [launch.ROOT / name for name in ("mkdocs.yml", "CITATION.cff", "LICENSE")]
    for folder in ("configs", "docs", "experiments", "gift_jax", "tests"):
        tracked += (launch.ROOT / folder).rglob("*.*")
    for path in tracked:
        if path.is_file() and path.suffix not in (".pyc", ".pyo"):
            assert (unpacked / path.relative_to(launch.ROOT)).is_file(), path


def test_neither_tensorflow_nor_torch_is_installed_with_it():
    found, left = set(), ["gift_jax"]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            needed = map(Requirement, metadata.requires(name) or ())
            left += [
                canonicalize_name(one.name)
                for one in needed
                if one.marker is None or one.marker.evaluate({"extra": ""})
            ]
    assert {"jax", "flax", "tensorflow-datasets"} <= found
    assert not found & {"tensorflow", "torch", "torchvision", "timm", "keras"}


def run(installed, folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed), "XLA_FLAGS": launch.QUICKLY},
        capture_output=True,
        text=True,
    )


def test_the_wheel_holds_what_the_readme_uses(installed):
    names = {str(path.relative_to(installed)) for path in installed.rglob("*.*")}
    for folder, inside in (("configs", "configs"), ("experiments", "experiments")):
        for path in (launch.ROOT / folder).glob("*.py"):
            assert f"gift_jax/{inside}/{path.name}" in names
    for path in (launch.ROOT / "configs" / "protocols").glob("*.py"):
        assert f"gift_jax/configs/protocols/{path.name}" in names
    for path in (launch.ROOT / "gift_jax").rglob("*.py"):
        assert str(path.relative_to(launch.ROOT)) in names
    assert "gift_jax/py.typed" in names
    assert not any(
        name.startswith(("tests", "configs", "experiments")) for name in names
    )


def test_a_package_of_the_user_called_configs_is_not_in_the_way(installed, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("raise SystemExit('shadowed')")
    for module in ("gift_jax.main", "gift_jax.experiments.ablation"):
        unknown = "--config.loss.name=huber"
        done = run(
            installed,
            tmp_path,
            *(module, "--config=gift_jax:digits:ipc=1", unknown, "--workdir=digits"),
        )
        assert done.returncode == 1
        assert "unknown loss 'huber'" in done.stderr


def test_the_console_command(installed, tmp_path):
    done = subprocess.run(
        [sys.executable, installed / "bin" / "gift-jax", "--config=gift_jax:digit"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "unknown config 'digit'; there are cifar10, " in done.stderr


@pytest.mark.slow
def test_a_job_and_a_study_from_another_folder(installed, tmp_path):
    small = (
        "--config=gift_jax:digits:teacher=conv1,student=conv1,distill=rded,ipc=2,epochs=2",
        "--config.teacher.epochs=1",
        "--config.teacher.min_accuracy=0",
        "--config.train.seeds=(0,)",
        "--workdir=digits",
    )
    for module in ("gift_jax.main", "gift_jax.experiments.loss_sensitivity"):
        done = run(installed, tmp_path, module, *small)
        assert done.returncode == 0, done.stderr
        assert "| top-1 last |" in done.stdout
    done = run(installed, tmp_path, "gift_jax.report", "digits")
    assert done.returncode == 0, done.stderr


def test_the_library_is_found_by_name_and_costs_nothing_to_import():
    program = (
        "import time; start = time.process_time(); import gift_jax, sys; "
        "assert time.process_time() - start < 1; assert 'jax' not in sys.modules; "
        "print([callable(getattr(gift_jax, n)) for n in sorted(gift_jax._HOME)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=launch.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    # All but the modules `labels` and `losses` are functions.
    assert done.stdout.count("True") == 8


def test_what_is_deprecated_and_used_here_is_an_error():
    with pytest.raises(DeprecationWarning):
        warnings.warn_explicit("old", DeprecationWarning, "f", 1, module="gift_jax.x")
    with pytest.raises(DeprecationWarning):
        warnings.warn_explicit("old", DeprecationWarning, "f", 1, module="configs.x")
    with pytest.warns(DeprecationWarning):  # of others it is one to read
        warnings.warn_explicit("old", DeprecationWarning, "f", 1, module="flax")
