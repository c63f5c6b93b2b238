"""The number of CPU cores."""

import math
import os
import pathlib

# Variable for XLA's number of threads; `pipeline.processes` gives each worker a share.
SHARE = "NPROC"
# Files with CPU quota and period of a control group, in version 2 and in version 1.
_QUOTAS = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))


def usable_cores(root: pathlib.Path = pathlib.Path("/")) -> int:
    """Cores of this process; under SLURM or in a container not all of the machine's.

    Not more than its share where several processes train at once. A fraction of a core
    that a container is granted counts as one.

    Args:
      root: Root of the file system that describes control groups.

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
    """Directories of this process's control groups and of the groups they are in."""
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
    """Cores that a control group's CPU quota amounts to; infinity without a limit."""
    for files in _QUOTAS:
        try:
            text = " ".join((group / file).read_text() for file in files)
            quota, period = map(int, text.split())
        except (OSError, ValueError):  # a group of the other version, or "max"
            continue
        if quota > 0:  # -1 means no limit
            return quota / period
    return math.inf
