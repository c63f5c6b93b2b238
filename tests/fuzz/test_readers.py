"""What is damaged or hostile is refused in one line, or read as what it was.

Every outcome is a dataset or an error that is meant for the user, in two seconds and a
gibibyte, and never other images or labels where a checksum could have told.
"""

import json
import pathlib
import subprocess
import sys

import pytest

from tests.fuzz import bombs, mutations

_SOME = 60  # of each family; many more are slow

ROOT = pathlib.Path(__file__).resolve().parents[2]


def outcomes(directory, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.probe", directory, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    now = directory / "now"
    at = now.read_text() if now.exists() else "the start"
    assert done.returncode == 0, f"died of {done.returncode} at {at}: {done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


def check(found, count):
    assert not found["failures"], "\n".join(found["failures"])
    counts = found["counts"]
    assert sum(counts.values()) == count
    assert counts["refused"] > count / 3
    return counts


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    directory = tmp_path_factory.mktemp("fuzz")
    bombs.write_all(directory)
    return outcomes(directory, 0, _SOME, *mutations.FAMILIES, "bombs")


@pytest.mark.parametrize("family", mutations.FAMILIES)
def test_some_of_each_family(some, family):
    counts = check(some[family], _SOME)
    assert counts["refused"] < _SOME  # what does no harm is still read


def test_bombs(some):
    check(some["bombs"], len(bombs.BOMBS))


@pytest.mark.slow
@pytest.mark.parametrize("family", mutations.FAMILIES)
def test_many_of_each_family(tmp_path, family):
    found = outcomes(tmp_path, 1, 2000, family)
    print(family, check(found[family], 2000), f"{found['peak_bytes'] / 2**20:.0f} MiB")
