"""What a command does before JAX computes anything."""

import jax

from gift_jax.runtime import allocator, devices, xla


def prepare(*, runs_own_code: bool) -> None:
    """Sets up this process: float32, and on machines of CPUs their memory and flags.

    Args:
      runs_own_code: Whether the user's code is to run, which may meet wrong sums of
        XLA, see `xla.leave_reductions_out_of_fusions`.
    """
    # What is stored, and compared, is float32, whatever JAX_ENABLE_X64 says.
    jax.config.update("jax_enable_x64", False)
    if devices.may_have_accelerators():
        return
    allocator.keep_freed_memory()
    if runs_own_code:
        xla.leave_reductions_out_of_fusions()
