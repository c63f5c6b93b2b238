"""Cores that a process may use."""

import os

import pytest

from gift_jax.runtime.cores import usable_cores


@pytest.fixture(autouse=True)
def no_share(monkeypatch):
    monkeypatch.delenv("NPROC", raising=False)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_a_process_that_is_bound_to_one_core_has_one(tmp_path):
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cores(tmp_path) == len(before)


@pytest.mark.parametrize(("counted", "expected"), [(7, 7), (None, 1)])
def test_where_nobody_is_bound_they_are_those_of_the_machine(
    counted, expected, monkeypatch, tmp_path
):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: counted)
    assert usable_cores(tmp_path) == expected


@pytest.fixture
def of_sixteen(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16), raising=False)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/", {"cpu.max": "250000 100000\n"}, 3),
        ("0::/", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/", {"cpu.max": "max 100000\n"}, 16),
        ("0::/", {"cpu.max": "6400000 100000\n"}, 16),
        # Seen from outside: the limit is that of the pod, not of the container.
        (
            "0::/pods/a",
            {"pods/cpu.max": "300000 100000", "pods/a/cpu.max": "max 100000"},
            3,
        ),
        (
            "5:cpuset:/\n4:cpu,cpuacct:/docker/1\n0::/",
            {
                "cpu/docker/1/cpu.cfs_quota_us": "400000\n",
                "cpu/docker/1/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        # As a container of version 1 sees it: its group is the root of the mount.
        (
            "4:cpu,cpuacct:/docker/1",
            {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"},
            2,
        ),
        (
            "1:cpu:/",
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            16,
        ),
        ("0::/", {}, 16),
    ],
)
@pytest.mark.usefixtures("of_sixteen")
def test_a_container_has_those_that_its_quota_pays_for(
    groups, files, expected, tmp_path
):
    found = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in {"proc/self/cgroup": groups, **found}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == expected


@pytest.mark.parametrize(("share", "expected"), [("3", 3), ("64", 16), ("x", 16)])
@pytest.mark.usefixtures("of_sixteen")
def test_one_of_several_processes_has_its_share(share, expected, monkeypatch, tmp_path):
    monkeypatch.setenv("NPROC", share)
    assert usable_cores(tmp_path) == expected
