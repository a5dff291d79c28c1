"""Several threads that send through one device: each has a socket and the flows that fall to it.

Flows are dealt by a hash, so that packets of one flow keep their order; between flows there is none. The native loops
run without the GIL, so that two threads are two processors' work.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

from pcaptools.core._core import NativeBatch
from pcaptools.core._sides import lanes_by_hash
from pcaptools.net._net import Sender

_Work = tuple[NativeBatch, int, int, object]

_PATIENCE = 0.02  # s: how long signals may wait


class ParallelSender:
    """As `_net.Sender`, by one thread for each target."""

    def __init__(self, targets: Sequence[Any], options: dict[str, Any]) -> None:
        """targets: descriptors or Frames, one for each thread."""
        self._senders = [Sender([target], only=lane, **options) for lane, target in enumerate(targets)]
        self._work: list[SimpleQueue[_Work]] = [SimpleQueue() for _ in targets]
        self._done: SimpleQueue[BaseException | None] = SimpleQueue()
        self._stopped = False
        self._left = 0  # threads at work
        self._error: BaseException | None = None
        self._t0 = 0
        self.alive = 0
        """When the thread that waits for the others last read the clock, ns."""
        self.dealt = False
        """Whether whoever gives batches has dealt their packets out already: see `deal`."""
        self.threads: list[int] = []
        """The system's numbers of the threads that send."""
        for sender, work in zip(self._senders, self._work, strict=True):
            thread = threading.Thread(target=self._run, args=(sender, work), daemon=True)
            thread.start()
            self.threads.append(thread.native_id or 0)

    def _run(self, sender: Sender, work: SimpleQueue[_Work]) -> None:
        while True:
            batch, start, stop, due = work.get()
            try:
                while start < stop and not self._stopped:
                    start = sender.send(batch, start, stop, due, self._t0)
                self._done.put(None)
            except BaseException as error:
                self._done.put(error)

    def deal(self, batch: NativeBatch) -> None:
        """Say which packet falls to which thread."""
        lanes_by_hash(batch, len(self._senders))

    def send(self, batch: NativeBatch, start: int, stop: int, due: object, t0: int) -> int:
        """As `_net.Sender.send`, but nothing is told as handled before all is: it returns `start` until then."""
        if not self._left:
            if not self.dealt:
                self.deal(batch)
            self._t0 = t0
            self._left = len(self._senders)
            for work in self._work:
                work.put((batch, start, stop, due))
        try:
            while self._left and self._is_one_done():
                self._left -= 1
        except BaseException:
            self.abandon()
            raise
        if self._left:
            return start
        error, self._error = self._error, None
        if error:
            raise error
        return stop

    def abandon(self) -> None:
        """What is being sent is not wanted any more: wait until no thread is at it."""
        self._stopped = True
        while self._left:
            self._done.get()
            self._left -= 1
        self._stopped = False

    def _is_one_done(self) -> bool:
        """Whether one more thread is done; within a moment, so that signal handlers can run."""
        from queue import Empty

        self.alive = time.monotonic_ns()
        try:
            self._error = self._done.get(timeout=_PATIENCE) or self._error
            return True
        except Empty:
            return False

    def _sum(self, name: str) -> int:
        return sum(getattr(sender, name) for sender in self._senders)

    def __getattr__(self, name: str) -> int:
        if name in ("sent", "sent_bytes", "cut", "retried", "timed", "delayed", "skipped"):
            return self._sum(name)
        raise AttributeError(name)

    gap = (0, 0)

    def pause(self, lasted: int) -> None:
        """The schedule of what is being sent moves by so many ns."""
        self._t0 += lasted

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
