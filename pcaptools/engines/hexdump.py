"""Hex dumps to packets: the output of od, xxd, hexdump, tcpdump and Wireshark, and what text2pcap reads.

A line is an offset and bytes, and perhaps text behind them; an offset of zero begins a packet::

    I 2026-11-21 08:00:00.25                          direction and time, when asked for, in front of a packet
    0000  61 62 63 64 65 66 67 68  69 6a 0a           abcdefghij.
    000b
    # a comment

Without offsets every line of bytes continues the packet, and an empty line or one of other text ends it. Bytes may
stand in groups. Text behind the bytes that looks like bytes is told from them by the next line's offset and, on a
packet's last line, by being what the bytes look like in ASCII. A `>` in front (quoted mail) counts for nothing.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta, timezone

from pcaptools.core.times import SECOND, parse_time
from pcaptools.engines.generate import LARGEST

Dumped = namedtuple("Dumped", "time outgoing data")
"""A packet of a dump: time in ns since the epoch, or None; outgoing True, False, or None; its bytes."""

BASES = {"hex": 16, "oct": 8, "dec": 10, "none": 0}

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_OFFSET = re.compile(r"(?:0x)?([0-9a-fA-F]{3,}):?(?=\s|$)")
_GROUP = re.compile(r"[ \t]*((?:[0-9a-fA-F]{2})+)(?=\s|$)")
_FRACTION = re.compile(r"[.,](\d+)")
_ISO = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?)(?:[.,](\d+))?(Z|[+-]\d\d:?\d\d)?(?=\s|$)")


def parse_base(text: str) -> int:
    """What offsets are written in, as a base; 0: there are none. Raises ValueError."""
    if text not in BASES:
        raise ValueError(f"'{text}' is not {', '.join(BASES)}")
    return BASES[text]


class Clock:
    """Reads times in one format: of strptime with %f (up to 9 digits), `%s` (seconds since the epoch), or `ISO`. A date
    that the format does not say is that of `start` (ns since the epoch). Times are UTC."""

    def __init__(self, format: str, start: int) -> None:
        """Raises ValueError for a format that cannot be."""
        self._format = format
        self._fields = max(len(format.split()), 1)
        self._start = _EPOCH + timedelta(seconds=start // SECOND)
        if format != "ISO" and "%s" not in format:
            try:
                datetime.strptime(datetime(2000, 1, 1).strftime(format), format)
            except ValueError as error:
                raise ValueError(f"'{format}' is not a format of times: {error}") from None
            if "%" not in format:
                raise ValueError(f"'{format}' is not a format of times: it has no field such as %H")

    def read(self, text: str) -> int | None:
        """The time at the beginning of a text, ns since the epoch; None: there is none."""
        try:
            if self._format == "ISO":
                found = _ISO.match(text)
                return self._since(datetime.fromisoformat(found[1] + _zone(found[3])), found[2]) if found else None
            text = " ".join(text.split()[: self._fields])
            return parse_time(text) if "%s" in self._format else self._read(text)
        except (ValueError, OverflowError):
            return None

    def _read(self, text: str) -> int:
        """A time in a format of strptime; the fraction may be missing."""
        format, fraction = " ".join(self._format.split()), ""
        if "%f" in format:
            format = re.sub(r"[.,]?%f", "", format)
            if found := list(_FRACTION.finditer(text)):
                fraction = found[-1][1]
                text = text[: found[-1].start()] + text[found[-1].end() :]
        date = datetime.strptime(text, format)
        if date.year == 1900:
            date = date.replace(year=self._start.year, month=self._start.month, day=self._start.day)
        return self._since(date, fraction)

    def _since(self, date: datetime, fraction: str | None) -> int:
        since = (date if date.tzinfo else date.replace(tzinfo=timezone.utc)) - _EPOCH
        return (since.days * 86400 + since.seconds) * SECOND + int((fraction or "0")[:9].ljust(9, "0"))


def _zone(text: str | None) -> str:
    """A time zone as Python 3.10 reads it."""
    if not text or text == "Z":
        return "+00:00"
    return text if ":" in text else f"{text[:3]}:{text[3:]}"


class Reader:
    """Packets from the lines of a dump; iterate it.

    base: of the offsets; clock: reads the times in front of packets; directions: whether an I or O stands there; ascii:
    text that looks like the bytes may follow them after a single blank. `problem` is told what is wrong.
    """

    def __init__(
        self, lines: Iterable[str], *, base: int = 16, clock: Clock | None = None, directions: bool = False,
        ascii: bool = False, problem: Callable[[str], None] = lambda message: None,
    ) -> None:  # fmt: skip
        self._lines = lines
        self._base = base
        self._clock = clock
        self._directions = directions
        self._ascii = ascii
        self._problem = problem
        self._data: bytearray | None = None
        self._line_start = 0
        self._sure: int | None = None
        self._broken = False
        self._time: int | None = None
        self._outgoing: bool | None = None
        self._number = 0
        self.untimed = 0
        """Packets without a time although one was expected."""

    def __iter__(self) -> Iterator[Dumped]:
        for line in self._lines:
            self._number += 1
            text = line.strip().lstrip("> \t")
            if not text.startswith("#"):
                yield from self._take(text)
        yield from self._finish()

    def _take(self, text: str) -> Iterator[Dumped]:
        if not self._base:
            yield from self._take_bare(text)
            return
        found = None if self._clock and self._is_time(text) else _OFFSET.match(text)
        offset = self._offset(found[1]) if found else None
        if found is None or offset is None:
            yield from self._take_text(text)
        else:
            if offset == 0:
                yield from self._finish()
                self._data = bytearray()
            self._take_line(offset, text[found.end() :])

    def _offset(self, digits: str) -> int | None:
        try:
            return int(digits, self._base)
        except ValueError:
            return None

    def _take_bare(self, text: str) -> Iterator[Dumped]:
        data = self._bytes(text) if not (self._clock and self._is_time(text)) else b""
        if data:
            self._data = (self._data or bytearray()) + data[: self._sure]
            self._sure = None
        else:
            yield from self._finish()
            yield from self._take_text(text)

    def _take_line(self, offset: int, rest: str) -> None:
        """A line of the current packet. The offset tells how many bytes the line before really had."""
        data = self._data
        if data is None or self._broken:
            if not self._broken:
                self._say(f"offset {offset:#x}, but no packet has begun: not read up to the next offset 0")
            self._broken = True
            return
        if self._line_start < offset < len(data):
            del data[offset:]
        if offset != len(data):
            self._say(f"offset {offset:#x} where {len(data):#x} is expected: the rest of the packet is not read")
            self._broken = True
            return
        self._line_start = offset
        data += self._bytes(rest)

    def _say(self, message: str) -> None:
        self._problem(f"line {self._number}: {message}")

    def _bytes(self, text: str) -> bytes:
        """All that looks like bytes at the beginning of a line's text; `_sure` of them are no text about the others."""
        data, at = b"", 0
        self._sure = None
        while found := _GROUP.match(text, at):
            gap = found.start(1) - at
            if data and (gap > 1 or self._ascii) and text[found.start(1) :] == _shown(data).strip():
                self._sure = len(data)
            data += bytes.fromhex(found[1])
            at = found.end()
        return data

    def _take_text(self, text: str) -> Iterator[Dumped]:
        """Text in front of a packet: perhaps its direction and time."""
        if not text:
            return
        if self._data and (self._is_time(text) or self._direction(text) is not None):
            yield from self._finish()
        if self._directions and self._outgoing is None:
            self._outgoing = self._direction(text)
        if self._clock and self._time is None:
            self._time = self._clock.read(self._without_direction(text))

    def _direction(self, text: str) -> bool | None:
        """Whether a text says O (True) or I (False)."""
        if not self._directions or (len(text) > 1 and not text[1].isspace()):
            return None
        return {"O": True, "I": False}.get(text[:1].upper())

    def _without_direction(self, text: str) -> str:
        return text if self._direction(text) is None else text[1:].lstrip()

    def _is_time(self, text: str) -> bool:
        return self._clock is not None and self._clock.read(self._without_direction(text)) is not None

    def _finish(self) -> Iterator[Dumped]:
        """The current packet is complete."""
        data, self._data = self._data, None
        if data and self._sure is not None:
            del data[self._line_start + self._sure :]
        self._sure = None
        self._broken = False
        self._line_start = 0
        if not data:
            return
        packet = Dumped(self._time, self._outgoing, bytes(data))
        self.untimed += self._clock is not None and self._time is None
        self._time = self._outgoing = None
        if len(data) > LARGEST:
            self._say(f"a packet of {len(data)} bytes: more than {LARGEST} are not possible; left out")
            return
        yield packet


def _shown(data: bytes) -> str:
    """What bytes look like in ASCII, at the end of a line."""
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)


def timed(packets: Iterable[Dumped], start: int) -> Iterator[Dumped]:
    """The same with a time each: one that has none comes a microsecond after the one before, the first at `start`."""
    time = start - 1000
    for packet in packets:
        time = time + 1000 if packet.time is None else packet.time
        yield packet._replace(time=time)
