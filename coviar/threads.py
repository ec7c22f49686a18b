"""Threads that decode a clip: FFmpeg and the compiled loops work outside Python's lock."""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

_MOST = 8


def num_threads(asked: int | None, jobs: int) -> int:
    """The threads to use for a number of jobs, at least 1.

    asked: None: one for each processor, but in a worker process, which has others beside it, one.
    """
    if asked is None:
        asked = 1 if multiprocessing.parent_process() else num_processors()
    return max(1, min(asked, jobs, _MOST))


def num_processors() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(work: Callable, count: int) -> list:
    """The results of `count` calls of `work` at once, one of them in this thread.

    `work` must not call this itself.
    """
    jobs = [_pool().submit(work) for _ in range(count - 1)]
    try:
        own = work()
    finally:
        wait(jobs)  # also after an error: what they write to is the caller's again
    return [own, *(job.result() for job in jobs)]


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MOST)  # kept, because a new thread begins on the core of its maker


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a fork has no threads of its parent's
