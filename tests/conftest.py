"""Process-wide settings that must be in place before JAX starts."""

import os

# Eight virtual devices for the data-parallel tests. XLA's CPU collectives need
# more threads than devices, or they can wait for one another forever.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("NPROC", "16")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_legacy_prng_key", "error")


@pytest.fixture(scope="module")
def one_device():
    """Jobs see one of the virtual devices, as most compilations are of one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "local_devices", lambda **_: jax.devices()[:1])
        yield
