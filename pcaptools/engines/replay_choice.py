"""Transforms of a replay: which packets are played, in which order, and with which faults."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from pcaptools.core import _replay
from pcaptools.core.batch import Batch
from pcaptools.core.pipeline import Account, Transform

Ranges = list[tuple[int, int]]
"""First and last packet number, counted from 1."""

ENDLESS = 1 << 62


def parse_numbers(text: str) -> Ranges:
    """Packet numbers such as `7,11,20-23,174-`, counted from 1. Raises ValueError."""
    ranges = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:(-)(\d*))?", part.strip(), re.ASCII)
        if not found or not int(found[1]):
            raise ValueError(f"'{text}' is not a list of packets such as 7,20-23,174-")
        first = int(found[1])
        last = int(found[3]) if found[3] else ENDLESS if found[2] else first
        if last < first:
            raise ValueError(f"'{part}' ends before it begins")
        ranges.append((first, last))
    return sorted(ranges)


def complement(ranges: Ranges) -> Ranges:
    """All the other packets."""
    gaps, following = [], 1
    for first, last in sorted(ranges):
        if first > following:
            gaps.append((following, first - 1))
        following = max(following, last + 1)
    return [*gaps, (following, ENDLESS)] if following < ENDLESS else gaps


class Drop(Transform):
    """Leaves out what `mark` marks; it returns how many those are. reason: how they are booked."""

    def __init__(self, mark: Callable[[Batch], int], reason: str, account: Account) -> None:
        self._mark = mark
        self._reason = reason
        self._account = account

    def feed(self, batch: Batch) -> Iterable[Batch]:
        dropped = self._mark(batch)
        if dropped:
            self._account.drop(self._reason, dropped)
            batch.forget_section_length()
            batch.compact()
        yield batch


class Pad(Transform):
    """Packets that a snap length cut get zero bytes up to their length on the wire."""

    def __init__(self) -> None:
        self._out = Batch()

    def feed(self, batch: Batch) -> Iterable[Batch]:
        _replay.copy_records(batch, self._out, pad=True)
        yield self._out


class Impair(Transform):
    """Loses, doubles and swaps packets: see `Impairment`."""

    def __init__(self, seed: int, chances: Sequence[int], account: Account) -> None:
        """chances: of loss, duplication and swapping, in 2^-32."""
        loss, dup, swap = chances
        self._faults = _replay.Impairment(seed, loss=loss, dup=dup, swap=swap)
        self._account = account
        self._out = Batch()

    def feed(self, batch: Batch) -> Iterable[Batch]:
        before = self._faults.counts
        self._faults.apply(batch, self._out)
        lost, doubled, _ = (now - then for now, then in zip(self._faults.counts, before, strict=True))
        self._account.drop("lost on purpose", lost)
        self._account.packets_in += doubled
        if self._out.n:
            yield self._out


def parse_chance(text: str) -> int:
    """A share such as `0.01` or `1%`, in 2^-32. Raises ValueError."""
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise ValueError(f"'{text}' is not a share such as 0.01 or 1%") from None
    if not 0 <= share <= 1:
        raise ValueError(f"'{text}' is not between 0 and 1")
    return round(share * (1 << 32))


def parse_jitter(text: str, duration: Callable[[str], int]) -> tuple[str, float, float]:
    """`5ms` (from 0 to that), `uniform:1ms-5ms`, `normal:5ms,1ms` (mean, deviation), `exponential:2ms` (mean), as the
    arguments of `Jitter` behind the seed. duration: parses one. Raises ValueError."""
    kind, _, rest = text.rpartition(":")
    if kind in ("", "uniform"):
        low, dash, high = rest.partition("-")
        return ("uniform", duration(low), duration(high)) if dash else ("uniform", 0, duration(low))
    if kind == "normal":
        mean, _, deviation = rest.partition(",")
        return "normal", duration(mean), duration(deviation or "0")
    if kind == "exponential":
        return "exponential", duration(rest), 0
    raise ValueError(f"'{text}' is not uniform:A-B, normal:MEAN,DEVIATION or exponential:MEAN")
