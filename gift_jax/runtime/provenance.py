"""The code and the processor that make a result."""

import functools
import pathlib
import platform
import re
import subprocess

import jax

import gift_jax

_CHECKOUT = pathlib.Path(gift_jax.__file__).parents[1]
_CPU_INFO = pathlib.Path("/proc/cpuinfo")


@functools.cache
def code_version() -> str:
    """The version, in a checkout with the commit: "0.1.0+g41e9367".

    ".dirty" is appended where files that git tracks are changed (PEP 440's local
    version, as setuptools_scm writes it).
    """
    if not (_CHECKOUT / ".git").exists():
        return gift_jax.__version__
    try:
        commit = _git("rev-parse", "--short=10", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):  # no git, or it refuses the owner
        return gift_jax.__version__
    return f"{gift_jax.__version__}+g{commit}{'.dirty' if changed else ''}"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(_CHECKOUT), *arguments],
        capture_output=True,
        check=True,
        text=True,
        timeout=10,
    )
    return done.stdout.strip()


def processor(device: jax.Device) -> str:
    """Name of the processor: the kind of an accelerator, or the model of a CPU."""
    return cpu_model() if device.platform == "cpu" else device.device_kind


@functools.cache
def cpu_model() -> str:
    """The model of this machine's CPU; where it is not known, its architecture."""
    try:
        model = re.search(r"^model name\s*:\s*(.+)$", _CPU_INFO.read_text(), re.M)
    except OSError:  # not Linux
        model = None
    return model[1].strip() if model else platform.processor() or platform.machine()
