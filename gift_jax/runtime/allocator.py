"""The C library's memory allocator, set up for training on CPUs.

XLA allocates its buffers anew in every step. glibc gives blocks of more than 32 MiB
back to the kernel as soon as they are freed, and the kernel hands them out again one
zeroed page at a time: a third of a ConvNet-3 step at batch 50 was spent there.
"""

import ctypes
import sys

# Constants of glibc's malloc.h; values are C ints.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Makes malloc keep the memory that a step frees for the next one.

    All threads share one heap, which grows to the largest need and is given back when
    the process ends. Must be called before JAX starts its threads, as threads keep the
    heap of their first allocation.

    Returns:
        Whether the C library is glibc, the only one that is changed.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, _LARGEST)
    libc.mallopt(_ARENA_MAX, 1)
    return True
