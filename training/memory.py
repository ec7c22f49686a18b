"""Memory that PyTorch frees stays with the process: getting it again costs page faults."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def keep_freed_memory() -> bool:
    """Tell the C library to keep what is freed; returns whether it does.

    glibc gives large blocks back to the system at once, and the end of its heap as well. A training
    step frees all its maps and wants as much again, by a page fault for every 4 KB. This holds for
    the whole process, which stays as large as it was at most. Other C libraries are left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
