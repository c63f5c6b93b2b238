"""Which code on which processor."""

import subprocess
import types

import jax
import pytest

import gift_jax
from gift_jax.runtime import provenance


@pytest.fixture(autouse=True)
def asked_anew():
    provenance.code_version.cache_clear()
    provenance.cpu_model.cache_clear()
    yield
    provenance.code_version.cache_clear()
    provenance.cpu_model.cache_clear()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_CHECKOUT", tmp_path)

    def git(*arguments):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    (tmp_path / "code.py").write_text("x = 1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    return types.SimpleNamespace(path=tmp_path, git=git)


def test_of_a_checkout_it_has_the_commit(checkout):
    commit = checkout.git("rev-parse", "HEAD")[:10]
    assert provenance.code_version() == f"{gift_jax.__version__}+g{commit}"


def test_changed_files_are_told_and_new_ones_are_not(checkout):
    (checkout.path / "results.jsonl").touch()
    assert not provenance.code_version().endswith(".dirty")
    provenance.code_version.cache_clear()
    (checkout.path / "code.py").write_text("x = 2\n")
    assert provenance.code_version().endswith(".dirty")


def test_what_is_installed_within_another_checkout_has_no_commit(checkout, monkeypatch):
    (checkout.path / "site-packages").mkdir()
    monkeypatch.setattr(provenance, "_CHECKOUT", checkout.path / "site-packages")
    assert provenance.code_version() == gift_jax.__version__


def test_without_git_there_is_the_version(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.code_version() == gift_jax.__version__


def test_a_cpu_has_its_model(tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: A CPU @ 2 GHz\nprocessor\t: 1\n")
    monkeypatch.setattr(provenance, "_CPU_INFO", info)
    assert provenance.processor(jax.devices()[0]) == "A CPU @ 2 GHz"


def test_elsewhere_than_on_linux_it_has_some_name(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_CPU_INFO", tmp_path / "absent")
    assert provenance.processor(jax.devices()[0])


def test_an_accelerator_has_its_kind():
    gpu = types.SimpleNamespace(platform="gpu", device_kind="NVIDIA H100")
    assert provenance.processor(gpu) == "NVIDIA H100"
