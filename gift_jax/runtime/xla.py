"""A flag of XLA without which it computes wrong sums on CPUs."""

import logging
import mmap
import os
import pathlib

import jaxlib
from jax._src import xla_bridge

_log = logging.getLogger(__name__)

_FLAG = "--xla_cpu_experimental_ynn_fusion_type"


def leave_reductions_out_of_fusions() -> bool:
    """Keeps XLA from fusing reductions into its YNNPACK kernels on CPUs.

    Under jit `jnp.sum((s @ jnp.full((10, 10), 0.1)) * s, 1)` is off by its own size
    from 512 rows on, in jaxlib 0.10.2 and 0.12.0.1 (jax-ml/jax#39103 is of that kind).
    No code of this package is affected (tests compare it with results computed
    operation by operation), but a user's loss or teacher can be. The flag makes a step
    of a ConvNet-3 slower, so the command sets it where the config names user code.

    Must be called before JAX computes anything, as XLA reads `XLA_FLAGS` once. Other
    flags in the variable are kept.

    Returns:
      Whether the flag is set in time, or not known to this XLA.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _FLAG in flags or not _is_known():
        return True
    if xla_bridge.backends_are_initialized():
        _log.warning("JAX has started without XLA_FLAGS=%s=-reduce: too late", _FLAG)
        return False
    if flags.strip() and not flags.strip().startswith("-"):
        _log.warning("add %s=-reduce to the file of flags %s", _FLAG, flags)
        return False
    os.environ["XLA_FLAGS"] = f"{flags} {_FLAG}=-reduce".strip()
    return True


def _is_known() -> bool:
    """Whether XLA knows the flag; an unknown flag would make it end the process."""
    name = _FLAG.removeprefix("--").encode()
    for path in pathlib.Path(jaxlib.__file__).parent.glob("libjax_common.*"):
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as library,
        ):
            return library.find(name) >= 0
    return False
