"""Memory that is freed stays with the process."""

import subprocess
import sys

import pytest

# Page faults of allocating, touching and freeing 64 MiB for the second time.
PROGRAM = """
import ctypes, resource, sys
from gift_jax.runtime import allocator

if sys.argv[1] == "keep" and not allocator.keep_freed_memory():
    print("other C library")
    sys.exit()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def touch():
    block = libc.malloc(2**26)
    ctypes.memset(ctypes.c_void_p(block), 1, 2**26)
    libc.free(block)

touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode):
    command = [sys.executable, "-c", PROGRAM, mode]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if not output.strip().isdigit():
        pytest.skip(output.strip())
    return int(output)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is changed")
def test_freed_memory_is_used_again_without_the_kernel():
    assert page_faults("leave") > 32 * page_faults("keep")
