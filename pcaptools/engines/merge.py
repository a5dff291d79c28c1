"""Several captures on one timeline, opened only while they overlap."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from pcaptools.core._replay import Timetable, shift_times
from pcaptools.core.batch import Batch

FULL = 1 << 19
"""Bytes of a merged batch, about."""

_FULL, _HELD, _END = -1, -2, -3  # enum pt_interleave_status of core/csrc/interleave.h


class Source(NamedTuple):
    """A capture that can be opened. first: no packet of it that matters is earlier, ns since the epoch, or None: look
    for yourself. live: reading may wait for somebody."""

    first: int | None
    open: Callable[[], Iterable[Batch]]
    live: bool = False


class Merge:
    """The records of all sources in order of time, copied into batches; at equal times the earlier source first.

    A source whose own times go backwards keeps its own order. A batch is valid until the next one is asked for.
    A source is opened when its first packet is next, and left when its last one is taken. Iterate once.

    sequence: one after the other instead, each beginning at the time at which the one before it ended.
    """

    def __init__(self, sources: Sequence[Source], *, sequence: bool = False) -> None:
        self._sources = sources
        self._end = 0
        self._ended = 0 if sequence else len(sources)
        self._shift: int | None = None
        self._table = Timetable(len(sources))
        self._open: dict[int, Iterator[Batch]] = {}
        self._live = False

    def source_of(self, interface: int) -> int:
        """The number of the source that an interface of the merged batches belongs to."""
        return self._table.source_of(interface)

    def __iter__(self) -> Iterator[Batch]:
        waiting = self._begin()
        out = Batch()
        self._table.begin(out)
        while True:
            self._table.hold(*(waiting[0] if waiting else (None, 0)))
            status = self._table.fill(out, FULL)
            if (status in (_FULL, _END) or self._live) and out.n:
                yield out
                self._table.begin(out)
            if status == _END:
                return
            if status == _HELD:
                self._start(heapq.heappop(waiting)[1])
            elif status >= 0:
                self._refill(status)

    def _begin(self) -> list[tuple[int, int]]:
        """Open what has to be open; the others, by the time of their first packet."""
        if not self._ended and self._sources:
            self._start(0)
            return []
        waiting = [(source.first, number) for number, source in enumerate(self._sources) if source.first is not None]
        heapq.heapify(waiting)
        for number, source in enumerate(self._sources):
            if source.first is None:
                self._start(number)
        return waiting

    def _start(self, number: int) -> None:
        source = self._sources[number]
        self._live = self._live or source.live
        self._open[number] = iter(source.open())
        self._refill(number)

    def _refill(self, number: int) -> None:
        for batch in self._open[number]:
            if batch.n:
                if self._ended < len(self._sources):
                    self._follow(batch)
                self._table.feed(number, batch)
                return
        del self._open[number]
        self._shift = None
        self._ended += 1
        if self._ended < len(self._sources):
            self._start(self._ended)

    def _follow(self, batch: Batch) -> None:
        """Move the times of a capture behind those of the one before it."""
        if self._shift is None:
            self._shift = self._end - batch.time(0) if self._ended else 0
        shift_times(batch, self._shift)
        latest = max(batch.time_range())
        self._end = max(self._end, latest) if self._ended or self._end else latest
