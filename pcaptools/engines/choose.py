"""Choosing packets by number, time, share and likeness, and letting the others pass unedited.

A chooser without an account marks only, for `Spare` to follow.
"""

from __future__ import annotations

from collections.abc import Iterable

from pcaptools.core import _choose
from pcaptools.core.batch import Batch
from pcaptools.core.pipeline import Account, Transform
from pcaptools.core.times import parse_span

MOST_PACKETS = 1_000_000
"""That a window for duplicates may have; each takes about 100 bytes while the window grows."""

ALWAYS = (-(1 << 63), (1 << 63) - 1)
"""ns."""


def parse_numbers(text: str) -> list[tuple[int, int]]:
    """`1-10,20,30-` as ranges of packet numbers, from 1. Raises ValueError."""
    ranges = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or not (last == "" or last.isdigit()) or not first.isascii() or not last.isascii():
            raise ValueError(f"'{part}' is not a packet number or a range such as 1-10 or 30-")
        high = (int(last) if last else 1 << 63) if dash else int(first)
        if not 0 < int(first) <= high or high > 1 << 63:
            raise ValueError(f"'{part}' is an empty range")
        ranges.append((int(first), high))
    return ranges


def parse_window(text: str) -> tuple[int, int]:
    """`1000` packets, or `0.5s` seconds, as (packets, ns), the other one 0. Raises ValueError."""
    if text.endswith("s") or "." in text:
        return 0, parse_span(text.removesuffix("s"))
    if not text.isdigit() or not text.isascii() or not 0 < int(text) <= MOST_PACKETS:
        raise ValueError(f"'{text}' is neither a number of packets up to {MOST_PACKETS} nor a time such as 0.5s")
    return int(text), 0


class Choose(Transform):
    """Keep packets by number, by time (ns, from <= time < until) and every `sample`-th of those."""

    def __init__(
        self,
        account: Account | None,
        *,
        numbers: list[tuple[int, int]],
        period: tuple[int, int] = ALWAYS,
        sample: int = 0,
    ) -> None:
        self._account = account
        self._native = _choose.Choice(numbers, *period, sample)

    def feed(self, batch: Batch) -> Iterable[Batch]:
        dropped = self._native.drop_others(batch)
        if dropped and self._account:
            self._account.drop("not chosen", dropped)
            batch.forget_section_length()
            batch.compact()
        yield batch


class Deduplicate(Transform):
    """Leave out what is there twice: the same from the IP header on, but for TTL and header checksum."""

    def __init__(self, account: Account | None, window: tuple[int, int]) -> None:
        self._account = account
        self._native = _choose.Duplicates(*window)

    @property
    def forgotten(self) -> int:
        """Packets of a window in time that were not compared with: there were too many."""
        return self._native.forgotten

    def feed(self, batch: Batch) -> Iterable[Batch]:
        dropped = self._native.drop(batch)
        if dropped and self._account:
            self._account.drop("duplicates", dropped)
            batch.forget_section_length()
            batch.compact()
        yield batch

    def finish(self) -> Iterable[Batch]:
        if self.forgotten and self._account:
            self._account.problem(
                f"--dedup-window: too long for memory: {self.forgotten} packets left it early, not compared with"
            )
        return ()


class Spare(Transform):
    """What the choosers before it marked passes unedited instead of being left out."""

    def __init__(self) -> None:
        self.spared = 0

    def feed(self, batch: Batch) -> Iterable[Batch]:
        self.spared += _choose.spare(batch)
        yield batch
