"""One stream of packets as several captures, by time or by size."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from pcaptools.core.batch import Batch

MOST = 64 << 20
"""Bytes of a capture that is made here at most: it is held in memory until it is whole."""

SECOND = 1_000_000_000
"""ns."""

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class Rule(NamedTuple):
    """When a new capture begins: period in ns, counted from the epoch, 0 for none; size in bytes."""

    period: int
    size: int


def parse_rule(text: str) -> Rule:
    """`time:SECONDS` or `size:BYTES`, with k, M or G for their powers of 1024. Raises ValueError."""
    kind, _, value = text.partition(":")
    unit = value[-1:].lower() if value[-1:].isalpha() else ""
    digits = value[:-1] if unit else value
    number = int(digits) if digits.isascii() and digits.isdigit() else 0
    if number and kind == "time" and not unit:
        return Rule(number * SECOND, MOST)
    if number and kind == "size" and unit in _UNITS:
        return Rule(0, min(number * _UNITS[unit], MOST))
    raise ValueError(f"'{text}' is neither time:SECONDS nor size:BYTES")


class Parts:
    """Cuts batches of one classic pcap, the file header in front, into whole captures."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._header = b""
        self._part = bytearray()
        self._until: int | None = None

    def feed(self, batch: Batch) -> Iterator[bytearray]:
        """The captures that are whole."""
        if not batch.n:
            self._header = self._header or bytes(batch.view())
            return
        view, start = batch.view(), 0
        while start < batch.n:
            stop = self._fit(batch, start)
            if stop == start:
                yield from self.finish()
                continue
            self._part += view[batch.record(start)[1] : batch.record(stop - 1)[2]]
            start = stop

    def _fit(self, batch: Batch, start: int) -> int:
        """The first record from `start` on that belongs to another capture."""
        stop = batch.n
        if not self._part:
            self._part += self._header
            self._until = None
        if self._rule.period:
            if self._until is None:
                self._until = (batch.time(start) // self._rule.period + 1) * self._rule.period
            stop = start if batch.time(start) >= self._until else batch.run(start, self._until, False)
        room = self._rule.size - len(self._part) + batch.record(start)[1]
        fits = bisect_right(range(start, stop), room, key=lambda k: batch.record(k)[2])
        if not fits and len(self._part) == len(self._header) and stop > start:
            fits = 1  # a packet alone that is larger than a capture may be
        return start + fits

    def finish(self) -> Iterator[bytearray]:
        """What has been gathered; at the end, a capture without packets if there were none at all."""
        if self._part or self._header:
            part, self._part = self._part or bytearray(self._header), bytearray()
            yield part
