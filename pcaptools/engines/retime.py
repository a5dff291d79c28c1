"""Other times for packets: shifted, scaled, started elsewhere, put in order. Exact to the nanosecond."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pcaptools.core import _choose
from pcaptools.core.batch import Batch
from pcaptools.core.numbers import parse_number
from pcaptools.core.pipeline import Account, Transform

_UNITS = {"": 10**9, "s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}
_SPAN = re.compile(r"([+-]?)(\d+(?:\.\d+)?|\.\d+)(s|ms|us|ns)?", re.ASCII)


def parse_shift(text: str) -> int:
    """`-3600`, `0.25`, `1500ns`, `20ms` as ns, exactly. Raises ValueError."""
    found = _SPAN.fullmatch(text)
    if not found:
        raise ValueError(f"'{text}' is not a time such as 1.5, 20ms or -1500ns")
    from fractions import Fraction

    value = Fraction(found[2]) * _UNITS[found[3] or ""]
    if value.denominator != 1 or value >= 1 << 62:
        raise ValueError(f"'{text}' is no whole number of nanoseconds")
    return int(value) * (-1 if found[1] == "-" else 1)


def parse_gap(text: str) -> int:
    """The same, 0 or more."""
    value = parse_shift(text)
    if value < 0:
        raise ValueError(f"'{text}' is negative")
    return value


def parse_scale(text: str) -> tuple[int, int]:
    """A positive factor as a ratio: `2`, `0.1`, `3/4`. Raises ValueError."""
    value = parse_number(text)
    if not 0 < value < 1 << 31 or value.denominator > 1 << 31:
        raise ValueError(f"'{text}' is out of range")
    return value.numerator, value.denominator


class Retiming(Transform):
    """shift, start, least_gap in ns; scale: (numerator, denominator) that gaps are multiplied with."""

    def __init__(
        self,
        account: Account,
        *,
        shift: int = 0,
        scale: tuple[int, int] | None = None,
        start: int | None = None,
        monotonic: bool = False,
        least_gap: int = 0,
        digits_kept: bool = False,
    ) -> None:
        self._account = account
        self._digits_kept = digits_kept
        self._native = _choose.Retime(shift=shift, scale=scale, start=start, monotonic=monotonic, least_gap=least_gap)

    @property
    def counts(self) -> dict:
        """retimed: packets with another time; inexact: of those, whose file cannot hold it; raised: by --monotonic or
        --min-gap."""
        return self._native.counts

    def feed(self, batch: Batch) -> Iterable[Batch]:
        self._native.apply(batch)
        yield batch

    def finish(self) -> Iterable[Batch]:
        inexact = self.counts["inexact"]
        if inexact and not self._digits_kept:
            self._account.notice(
                f"{inexact} times do not fit the capture exactly: --format nspcap or pcapng has more digits"
            )
        return ()


MOST_HELD = 3 << 20
"""Bytes that a sorting leaves, at most."""

SORTED_BY = 1 << 20
"""Bytes that come in between two sortings: fewer would sort the same packets too often."""


class Reorder(Transform):
    """Sort by time; a packet that is more than `window` ns late comes where it is found. A window of more than
    `most` bytes is shorter than was asked for."""

    def __init__(self, account: Account, window: int, most: int = MOST_HELD) -> None:
        self._account = account
        self._window = window
        self._native = _choose.Window(most)
        self._held, self._rest, self._out = Batch(), Batch(), Batch()
        self._latest: int | None = None
        self._due = self._step = min(SORTED_BY, most)

    @property
    def late(self) -> int:
        """Packets that came out behind a later one."""
        return self._native.late

    def feed(self, batch: Batch) -> Iterable[Batch]:
        if self._held.n and batch.pcapng and bytes(batch.view()[:4]) == b"\x0a\x0d\x0d\x0a":  # a new section
            yield from self._rest_of_it()
            self._latest = None
            self._native.restart()
        self._out.clear()
        self._native.hold(batch, self._held, self._out)
        if batch.n:
            last = max(batch.time_range())
            self._latest = last if self._latest is None else max(self._latest, last)
        if self._held.used >= self._due:
            self._release(-(1 << 62) if self._latest is None else self._latest - self._window)
        if self._out.used:
            yield self._out

    def _release(self, until: int) -> None:
        self._rest.clear()
        self._native.release(self._held, until, self._out, self._rest)
        self._held.swap(self._rest)
        self._due = self._held.used + self._step

    def _rest_of_it(self) -> Iterable[Batch]:
        if self._held.n:
            self._out.clear()
            self._release((1 << 63) - 1)
            yield self._out

    def finish(self) -> Iterable[Batch]:
        yield from self._rest_of_it()
        if self.late and self._native.early:
            self._account.problem(
                f"{self.late} packets are still out of order: there were more within --reorder than memory for them"
            )
        elif self.late:
            self._account.notice(f"{self.late} packets came later than --reorder allows, and stayed behind")
