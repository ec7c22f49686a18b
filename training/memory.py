"""Memory that PyTorch frees stays with the process: getting it again costs page faults."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def keep_freed_memory() -> bool:
    """Tell the C library to keep what is freed; returns whether it does.

    glibc gives blocks above 32 MB back at once, and what lies at the end of its heap as well. A
    training step frees all its maps and wants as much again, 4 KB a page fault. For the whole
    process: it stays as large as it was at most. Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
