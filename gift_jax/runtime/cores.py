"""How many CPU cores there are."""

import math
import os
import pathlib

# How many threads XLA starts; `pipeline.processes` gives each of its workers a share.
SHARE = "NPROC"
# What a control group may use in a period, in version 2 and in version 1.
_QUOTAS = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))


def usable_cores(root: pathlib.Path = pathlib.Path("/")) -> int:
    """Of this process: fewer than the machine has under SLURM, or in a container.

    Nor more than its share where several train at once. A part of a core that a
    container is granted counts as one.

    Args:
      root: Of the file system that tells of control groups.

    Returns:
      At least 1.
    """
    if hasattr(os, "sched_getaffinity"):
        bound = len(os.sched_getaffinity(0))
    else:
        bound = os.cpu_count() or 1
    share = os.environ.get(SHARE, "")
    limits = [_granted(group) for group in _control_groups(root)]
    if share.isdecimal():
        limits.append(int(share))
    return max(math.ceil(min([bound, *limits])), 1)


def _control_groups(root: pathlib.Path) -> list[pathlib.Path]:
    """Directories of the groups of this process, with those that these are in."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not on Linux
        return []
    found = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        own = pathlib.PurePosixPath(name.lstrip("/"))
        found += [mounted / group for group in (own, *own.parents)]
    return found


def _granted(group: pathlib.Path) -> float:
    """Cores' worth of time that a control group has, infinity where it has no limit."""
    for files in _QUOTAS:
        try:
            text = " ".join((group / file).read_text() for file in files)
            quota, period = map(int, text.split())
        except (OSError, ValueError):  # of the other version, or "max"
            continue
        if quota > 0:  # -1 stands for none
            return quota / period
    return math.inf
