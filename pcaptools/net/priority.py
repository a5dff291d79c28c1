"""Priority for a process that has to be on time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

PRIORITY = 10
"""Of SCHED_FIFO: above all ordinary processes, below the kernel's own threads."""

_MCL_CURRENT, _MCL_FUTURE = 1, 2


def prefer(threads: Iterable[int] = (), *, leaves_root: bool = False) -> list[str]:
    """Ask for SCHED_FIFO for this thread and others (by the system's numbers), and memory that stays; returns what was
    refused, in words. leaves_root: the process will give root up."""
    if sys.platform != "linux":
        return ["--realtime: on Linux only"]
    refused = []
    try:
        for thread in (0, *threads):
            os.sched_setscheduler(thread, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    except OSError as error:
        refused.append(f"--realtime: no SCHED_FIFO ({error.strerror}): it needs CAP_SYS_NICE")
    unlimited = _lift_limit()
    if leaves_root and not unlimited:
        refused.append("--realtime: memory stays unlocked: without root it could not grow beyond ulimit -l")
    elif not _lock_memory():
        refused.append("--realtime: memory cannot be locked: it needs CAP_IPC_LOCK")
    return refused


def settle() -> None:
    """Stay on one processor, the last one. Threads that exist already, such as one that reads ahead, do not."""
    processors = os.sched_getaffinity(0)
    if len(processors) > 1:
        os.sched_setaffinity(0, {max(processors)})


def _lift_limit() -> bool:
    """Allow any amount of locked memory: for a process without root it is a limit on memory that comes later."""
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (OSError, ValueError):
        return resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY
    return True


def _lock_memory() -> bool:
    import ctypes

    return ctypes.CDLL(None, use_errno=True).mlockall(_MCL_CURRENT | _MCL_FUTURE) == 0
