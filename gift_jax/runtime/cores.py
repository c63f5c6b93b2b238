"""How many CPU cores there are."""

import os


def usable_cores() -> int:
    """Of this process: fewer than the machine has under SLURM, or in a container."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
