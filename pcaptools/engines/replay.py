"""Playing batches into an output, each packet at its due time. The output has the clock; nothing here reads one."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from pcaptools.core import _replay
from pcaptools.core.batch import Batch

HOUR = 3600 * 1_000_000_000
"""ns: a longer silence is worth a word."""

UNFIT = {
    "linktype": "of a link type that the device does not carry",
    "empty": "without a byte",
    "short": "shorter than a link header",
    "long": "beyond the MTU",
    "not UDP": "not of UDP",
    "fragment": "in fragments",
    "cut": "cut by the snap length",
}


class Output(Protocol):
    """Where packets go: net/inject.py and its kin, or a recording (files/recording.py)."""

    sender: Any
    now: Callable[[], int]

    def mark_unfit(self, batch: Batch, start: int, stop: int) -> dict[str, int]: ...
    def send(self, batch: Batch, start: int, stop: int, due: object, t0: int) -> int: ...


class Player:
    """Plays batches.

    schedule: None for no waiting. limit: packets at most; duration: ns at most. ask: how many packets may go before it
    is asked again. tick: called between the pieces of work, at least every 20 ms. warn: told what the user should know.
    counts: packets sent by interface of the batches, when it is a dict. prepare: called with each batch first.
    """

    def __init__(
        self,
        output: Output,
        schedule: _replay.Schedule | None,
        *,
        tick: Callable[[], object] = lambda: None,
        warn: Callable[[str], object] = lambda message: None,
        limit: int | None = None,
        duration: int | None = None,
        ask: Callable[[int], int] | None = None,
        jitter: _replay.Jitter | None = None,
        prepare: Callable[[Batch], object] | None = None,
        counts: dict[int, int] | None = None,
    ) -> None:
        self._output = output
        self._schedule = schedule
        self._tick, self._warn, self._ask, self._prepare = tick, warn, ask, prepare
        self._left = limit
        self._duration = duration
        self._jitter = jitter
        self._asked = 0
        self._warned = False
        self._due = array("q")
        self.counts = counts
        self.start = 0
        """When the first packet was due, by the output's clock, ns; 0: there was none yet."""
        self.position: int | None = None
        """Time of the last packet handled, ns since the epoch."""
        self.done = 0
        """Packets handled."""
        self.unfit = dict.fromkeys(UNFIT, 0)

    def play(self, batches: Iterable[Batch]) -> bool:
        """Play everything; False when the limit or the duration was reached."""
        return all(self._play(batch) for batch in batches if batch.n)

    def pause(self, lasted: int) -> None:
        """The process was stopped for so many ns: the rest of the schedule moves by them."""
        if self.start:
            self.start += lasted
            getattr(self._output.sender, "pause", lambda lasted: None)(lasted)

    def rewind(self, delay: int = 0) -> None:
        """The captures begin anew, so many ns later."""
        if self._schedule:
            self._schedule.rewind(delay)

    def has_time(self) -> bool:
        """Whether the duration is not over."""
        return self._duration is None or self.elapsed() < self._duration

    def elapsed(self) -> int:
        """ns since the first packet was due."""
        return self._output.now() - self.start if self.start else 0

    def _play(self, batch: Batch) -> bool:
        if self._prepare:
            self._prepare(batch)
        stop = batch.n
        if self._left is not None:
            stop = min(stop, self._left)
            self._left -= stop
        for reason, packets in self._output.mark_unfit(batch, 0, stop).items():
            self.unfit[reason] += packets
        due, reached = self._due_times(batch, stop)
        if not self.start:
            self.start = self._output.now()
        whole = self._send(batch, reached, due) and reached == stop
        return whole and self._left != 0

    def _due_times(self, batch: Batch, stop: int) -> tuple[array[int] | None, int]:
        if not self._schedule:
            return None, stop
        if len(self._due) < batch.n:
            self._due = array("q", bytes(8 * batch.n))
        stop = self._schedule.due(batch, 0, stop, self._due)
        if self._jitter:
            self._jitter.apply(0, stop, self._due)
        if self._schedule.widest > HOUR and not self._warned:
            self._warned = True
            hours = self._schedule.widest / HOUR
            self._warn(f"there is a silence of {hours:.0f} hours between two packets: --max-gap shortens it")
        return self._due, stop

    def _send(self, batch: Batch, stop: int, due: array[int] | None) -> bool:
        """Whether all of them were handled: there was time for them. The others of the batch are marked as dropped."""
        start = 0
        try:
            while start < stop and self.has_time():
                until = min(stop, start + self._allowance()) if self._ask else stop
                following = self._output.send(batch, start, until, due, self.start)
                self._note(batch, start, following)
                start = following
                self._tick()
        finally:
            if start < stop:
                getattr(self._output.sender, "abandon", lambda: None)()
            _replay.drop_range(batch, start, batch.n)
        return start >= stop

    def _allowance(self) -> int:
        assert self._ask
        if not self._asked:
            self._asked = self._ask(self.done + 1)
        return self._asked

    def _note(self, batch: Batch, start: int, stop: int) -> None:
        if stop <= start:
            return
        self._asked = max(self._asked - (stop - start), 0)
        self.done += stop - start
        self.position = batch.time(stop - 1)
        if self.counts is not None:
            _replay.tally(batch, start, stop, self.counts)
