"""Stopping a process that keeps time (Ctrl-Z, SIGSTOP) and letting it go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

LEAST = 50_000_000
"""ns: what is shorter without SIGTSTP was no stop, but a busy machine."""


class Stops:
    """Calls `resumed` with the ns that the process stood still, whenever it goes on.

    now: the clock. begun: when the schedule began, 0: not yet. sender: tells when it last read the clock (`alive`), and
    the last two readings that were far apart (`gap`); by them the time of a SIGSTOP is known within the time that it
    sleeps. That of SIGTSTP is known exactly.
    """

    def __init__(
        self, now: Callable[[], int], begun: Callable[[], int], sender: Any, resumed: Callable[[int], object]
    ) -> None:
        self._now, self._begun, self._sender, self._resumed = now, begun, sender, resumed
        self._stopped = 0
        if signal.getsignal(signal.SIGTSTP) is not signal.SIG_IGN:
            signal.signal(signal.SIGTSTP, self._stop)
        signal.signal(signal.SIGCONT, self._go_on)

    def _stop(self, *_: object) -> None:
        self._stopped = self._now()
        os.kill(os.getpid(), signal.SIGSTOP)

    def _go_on(self, *_: object) -> None:
        known, self._stopped = self._stopped, 0
        lasted = self._now() - known if known else self._silence()
        if (known and self._begun()) or lasted > LEAST:
            self._resumed(lasted)

    def _silence(self) -> int:
        """How long the sender did not read the clock until now, or until just now; ns."""
        now, alive = self._now(), max(self._sender.alive, self._begun())
        begin, end = self._sender.gap
        if alive and now - alive > LEAST:
            return now - alive
        return end - begin if now - end < LEAST else 0
