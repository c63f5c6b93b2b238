"""The wheel, used from another folder, as one who never saw the repository does."""

import os
import shutil
import subprocess
import sys
import warnings
import zipfile

import pytest

from tests import launch


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel's content; the dependencies are those of the tests."""
    pytest.importorskip("setuptools")
    where = tmp_path_factory.mktemp("wheel")
    for folder in ("gift_jax", "configs", "experiments"):
        shutil.copytree(launch.ROOT / folder, where / folder)
    for file in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(launch.ROOT / file, where)
    subprocess.run(
        [
            sys.executable,
            "-m",
            *["pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "."],
        ],
        cwd=where,
        check=True,
    )
    (wheel,) = where.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(where / "site")
    return where / "site"


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
    done = run(
        installed, tmp_path, "gift_jax.main", "--config=gift_jax:digit", "--workdir=d"
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
        "import time; start = time.perf_counter(); import gift_jax, sys; "
        "assert time.perf_counter() - start < 0.3; assert 'jax' not in sys.modules; "
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
    with pytest.warns(DeprecationWarning):  # of others it is one to read
        warnings.warn_explicit("old", DeprecationWarning, "f", 1, module="flax")
