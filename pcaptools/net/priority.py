"""Priority for a process that has to be on time."""

from __future__ import annotations

import os
import sys

PRIORITY = 10
"""Of SCHED_FIFO: above all ordinary processes, below the kernel's own threads."""

_MCL_CURRENT, _MCL_FUTURE = 1, 2


def prefer() -> list[str]:
    """Ask for SCHED_FIFO for this thread, and memory that stays; returns what was refused, in words."""
    if sys.platform != "linux":
        return ["--realtime: on Linux only"]
    refused = []
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    except OSError as error:
        refused.append(f"--realtime: no SCHED_FIFO ({error.strerror}): it needs CAP_SYS_NICE")
    if not _lock_memory():
        refused.append("--realtime: memory cannot be locked: it needs CAP_IPC_LOCK")
    return refused


def settle() -> None:
    """Stay on one processor, the last one. Threads that exist already, such as one that reads ahead, do not."""
    processors = os.sched_getaffinity(0)
    if len(processors) > 1:
        os.sched_setaffinity(0, {max(processors)})


def _lock_memory() -> bool:
    import ctypes

    return ctypes.CDLL(None, use_errno=True).mlockall(_MCL_CURRENT | _MCL_FUTURE) == 0
