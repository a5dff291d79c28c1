"""Packets and bits per second over time: a series of equal slices, and its drawing in a terminal."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator

from pcaptools.core._info import Timeline
from pcaptools.core.batch import Batch
from pcaptools.engines.summary import NS

KINDS = ("TCP", "UDP", "ICMP", "other IP", "ARP", "other")
"""What packets are told apart by (enum pt_bin_kind_of of csrc/timeline.h)."""

_SIGNS = "TUIPA."

Slice = namedtuple("Slice", "packets bytes burst_packets burst_bytes")
"""One slice: packets and bytes by kind, and the most of them in one burst interval."""


class Series:
    """A capture over time. start, width, burst: ns; slices: equal ones, of `width` each."""

    def __init__(self) -> None:
        self._native = Timeline()
        self.start = self.width = self.burst = 0
        self.slices: list[Slice] = []

    def feed(self, batch: Batch) -> None:
        """Count a batch."""
        self._native.add(batch)

    def end(self) -> None:
        """No more packets come: fill the fields."""
        self.start, self.width, self.burst, bins = self._native.end()
        self.slices = [Slice._make(one) for one in bins]

    @property
    def bursts(self) -> bool:
        """Slices are longer than the burst interval: bursts say more than the slices do."""
        return self.width > self.burst

    def rates(self, what: str) -> list[list[float]]:
        """Per second, by kind, of every slice; what: `packets` or `bits`."""
        field, factor = ("bytes", 8) if what == "bits" else ("packets", 1)
        return [[amount * factor * NS / self.width for amount in getattr(one, field)] for one in self.slices]

    def burst_rates(self, what: str) -> list[float]:
        """The highest rate in a burst interval, of every slice."""
        field, factor = ("burst_bytes", 8) if what == "bits" else ("burst_packets", 1)
        return [getattr(one, field) * factor * NS / self.burst for one in self.slices]

    def merged(self, most: int) -> Series:
        """The same in at most so many slices."""
        coarse = Series()
        together = max(1, -(-len(self.slices) // most))
        coarse.start, coarse.width, coarse.burst = self.start, self.width * together, self.burst
        for at in range(0, len(self.slices), together):
            group = self.slices[at : at + together]
            coarse.slices.append(
                Slice(
                    [sum(amounts) for amounts in zip(*(one.packets for one in group), strict=True)],
                    [sum(amounts) for amounts in zip(*(one.bytes for one in group), strict=True)],
                    max(one.burst_packets for one in group),
                    max(one.burst_bytes for one in group),
                )
            )
        return coarse


def draw(series: Series, lines: int = 24, width: int = 100) -> Iterator[str]:
    """Bars of bits per second by time, made of the signs of the protocols; `|` marks the highest burst."""
    coarse = series.merged(lines)
    if not coarse.slices:
        return
    packets, bits = coarse.rates("packets"), coarse.rates("bits")
    bursts = coarse.burst_rates("bits") if coarse.bursts else [0.0] * len(bits)
    highest = max(max(map(sum, bits)), max(bursts)) or 1.0
    room = max(width - 49, 10)
    yield "     second     packets/s        bits/s  burst bits/s  bits/s by protocol"
    for at, (count, amounts, burst) in enumerate(zip(packets, bits, bursts, strict=True)):
        mark = f"{burst:12.0f}" if coarse.bursts else " " * 12
        numbers = f"{at * coarse.width / NS:11.3f}  {sum(count):12.1f}  {sum(amounts):12.0f}  {mark}"
        yield f"{numbers}  {_bar(amounts, burst, highest, room)}".rstrip()
    signs = ", ".join(f"{sign} {kind}" for sign, kind in zip(_SIGNS, KINDS, strict=True))
    marked = f"; | the highest {coarse.burst // 1_000_000} ms" if coarse.bursts else ""
    yield f"{signs}{marked}; full width {highest:.0f} bits/s, {coarse.width / NS:.6g} s a line"


def _bar(amounts: list[float], burst: float, highest: float, room: int) -> str:
    bar = ""
    total = 0.0
    for sign, amount in zip(_SIGNS, amounts, strict=True):
        total += amount
        bar += sign * (round(total / highest * room) - len(bar))
    at = round(burst / highest * room)
    return bar if not burst else bar.ljust(at - 1)[: at - 1] + "|" + bar[at:] if at else bar
