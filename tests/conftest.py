"""Process-wide settings that must be in place before JAX starts."""

import atexit
import os
import shutil
import signal
import tempfile

from tests import launch

# Eight virtual devices for the data-parallel tests. XLA's CPU collectives need more
# threads than devices, or they can wait for one another forever.
os.environ.setdefault(
    "XLA_FLAGS", f"--xla_force_host_platform_device_count=8 {launch.QUICKLY}"
)
os.environ.setdefault("NPROC", "16")

# What one process has compiled, the others of this session need not.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    cache = tempfile.mkdtemp(prefix="gift_jax_tests_")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_legacy_prng_key", "error")


# Files of minutes, which are begun first: the last one runs alone.
_LONGEST = (
    "test_notebooks", "test_hosts", "test_processes", "test_small_studies",
    "test_continual", "fuzz/test_readers", "tests/test_main", "test_first_quarter",
    "plan/test_stages", "test_doors",
)  # fmt: skip


def pytest_configure() -> None:
    # Ignored where a shell has put the tests into the background, and then by all that
    # they start.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not any(name in item.nodeid for name in _LONGEST))


@pytest.fixture(scope="module")
def one_device():
    """Jobs see one of the virtual devices, as most compilations are of one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "local_devices", lambda **_: jax.devices()[:1])
        yield
