"""Several threads that send through one device: each has a socket and the flows that fall to it.

Flows are dealt by a hash, so that packets of one flow keep their order; between flows there is none. The native loops
run without the GIL, so that two threads are two processors' work.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

from pcaptools.core._core import NativeBatch
from pcaptools.core._replay import lanes_by_hash
from pcaptools.net._net import Sender

_Work = tuple[NativeBatch, int, int, object, int]

_PATIENCE = 0.02  # s: how long signals may wait


class ParallelSender:
    """As `_net.Sender`, by one thread for each descriptor."""

    def __init__(self, fds: Sequence[int], options: dict[str, Any]) -> None:
        self._senders = [Sender(fd, only=lane, **options) for lane, fd in enumerate(fds)]
        self._work: list[SimpleQueue[_Work]] = [SimpleQueue() for _ in fds]
        self._done: SimpleQueue[BaseException | None] = SimpleQueue()
        self._stopped = False
        self.dealt = False
        """Whether whoever gives batches has dealt their packets out already: see `deal`."""
        for sender, work in zip(self._senders, self._work, strict=True):
            threading.Thread(target=self._run, args=(sender, work), daemon=True).start()

    def _run(self, sender: Sender, work: SimpleQueue[_Work]) -> None:
        while True:
            batch, start, stop, due, t0 = work.get()
            try:
                while start < stop and not self._stopped:
                    start = sender.send(batch, start, stop, due, t0)
                self._done.put(None)
            except BaseException as error:
                self._done.put(error)

    def deal(self, batch: NativeBatch) -> None:
        """Say which packet falls to which thread."""
        lanes_by_hash(batch, len(self._senders))

    def send(self, batch: NativeBatch, start: int, stop: int, due: object, t0: int) -> int:
        """As `_net.Sender.send`, but it returns when all is handled, or when a signal handler raises."""
        if not self.dealt:
            self.deal(batch)
        for work in self._work:
            work.put((batch, start, stop, due, t0))
        left = len(self._senders)
        error: BaseException | None = None
        try:
            while left:
                error = self._finished() or error
                left -= 1
        except BaseException:
            self._stopped = True
            while left:
                self._done.get()
                left -= 1
            raise
        if error:
            raise error
        return stop

    def _finished(self) -> BaseException | None:
        """What the next thread to finish ended with. Signal handlers run meanwhile."""
        from queue import Empty

        while True:
            try:
                return self._done.get(timeout=_PATIENCE)
            except Empty:
                continue

    def _sum(self, name: str) -> int:
        return sum(getattr(sender, name) for sender in self._senders)

    def __getattr__(self, name: str) -> int:
        if name in ("sent", "sent_bytes", "cut", "retried", "timed", "delayed", "skipped"):
            return self._sum(name)
        raise AttributeError(name)

    @property
    def alive(self) -> int:
        """When a sender last read the clock, ns."""
        return max(sender.alive for sender in self._senders)

    @property
    def failed(self) -> dict[int, int]:
        """Packets that the kernel refused, by errno."""
        failed: Counter[int] = Counter()
        for sender in self._senders:
            failed.update(sender.failed)
        return dict(failed)

    def lane(self, k: int) -> dict[str, int]:
        """All of them together: they share a device."""
        total: Counter[str] = Counter()
        for sender in self._senders:
            total.update(sender.lane(0))
        return {name: total[name] for name in ("sent", "bytes", "failed", "cut", "no_room", "again")}

    def lateness(self, quantile: float) -> int:
        """The worst of the threads': an upper bound."""
        return max(sender.lateness(quantile) for sender in self._senders)
