"""What is known of one capture, and its figures as JSON."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator
from typing import Any

from pcaptools.core._core import NativeBatch
from pcaptools.core.batch import STATUS
from pcaptools.core.blocks import Blocks, Interface, Section, packet_comments
from pcaptools.core.linktype import name as linktype_name
from pcaptools.engines.encapsulation import PER_PACKET, UNKNOWN, Encapsulation, encapsulation

NS = 1_000_000_000

PERCENTILES = (5, 25, 50, 75, 95, 99)

Damage = namedtuple("Damage", "offset reason")
"""Where a capture is damaged (bytes, or None when only the compressed place is known) and how."""

FileType = namedtuple("FileType", "short title")

_TYPES = {
    "pcap": FileType("pcap", "Wireshark/tcpdump/... - pcap"),
    "nspcap": FileType("nsecpcap", "Wireshark/tcpdump/... - nanosecond pcap"),
    "modified pcap": FileType("modpcap", "Modified tcpdump - pcap"),
    "pcapng": FileType("pcapng", "Wireshark/... - pcapng"),
}


class Summary:
    """One capture: its storage (name, format, compression, size in bytes), figures, blocks, hashes and damage.

    tables: of engines/talkers.py by name. series: of engines/histogram.py.
    """

    def __init__(self, name: str, format: str, compression: str | None, figures: Any, blocks: Blocks) -> None:
        self.name = name
        self.format = format
        self.compression = compression
        self.figures = figures
        self.blocks = blocks
        self.size = 0
        self.hashes: dict[str, str | None] | None = None
        self.damage: Damage | None = None
        self.packet_comments: list[tuple[int, str]] = []
        self.tables: dict[str, Any] = {}
        self.series: Any = None

    def table_lines(self) -> Iterator[str]:
        """The tables, for people."""
        for table in self.tables.values():
            yield from table.lines()

    def add_comments(self, batch: NativeBatch) -> None:
        """Note the comments of packets; before the batch is counted."""
        before = self.figures.packets
        self.packet_comments += [(before + k + 1, text) for k, text in packet_comments(batch)]

    @property
    def file_type(self) -> FileType:
        """As capinfos calls it, compression included."""
        short, title = _TYPES[self.format]
        suffix = f" ({self.compression} compressed)" if self.compression else ""
        return FileType(short + suffix, title + suffix)

    @property
    def encapsulation(self) -> Encapsulation:
        """The one that all interfaces share, else PER_PACKET."""
        found = {encapsulation(linktype) for linktype in self._linktypes()}
        if len(found) > 1:
            return PER_PACKET
        return found.pop() if found else UNKNOWN

    def _linktypes(self) -> set[int]:
        return {interface.linktype for interface in self.blocks.interfaces}

    @property
    def packets_by_encapsulation(self) -> list[tuple[Encapsulation, int]]:
        """Those that packets have, in the order of their numbers."""
        found: dict[Encapsulation, int] = {}
        for interface, (packets, _) in self.shares:
            if packets:
                kind = encapsulation(interface.linktype)
                found[kind] = found.get(kind, 0) + packets
        return sorted(found.items())

    @property
    def shares(self) -> list[tuple[Interface, tuple[int, int]]]:
        """Every interface with its packets and bytes."""
        counted = self.figures.interfaces
        interfaces = self.blocks.interfaces
        counted += [(0, 0)] * (len(interfaces) - len(counted))
        return list(zip(interfaces, counted, strict=False))

    def precision(self, interface: Interface | None) -> int:
        """Digits of a second in an interface's times, as capinfos has them: 0, 1, 2, 3, 6 or 9."""
        digits = len(str(interface.ticks)) - 1 if interface else 6
        return 9 if digits >= 9 else 6 if digits >= 6 else min(digits, 3)

    @property
    def precisions(self) -> set[int]:
        """Of all interfaces."""
        return {self.precision(interface) for interface in self.blocks.interfaces}

    @property
    def timed(self) -> bool:
        """Every packet has a time, and there is one."""
        return self.figures.timed and not self.figures.untimed

    @property
    def duration(self) -> int:
        """ns from the earliest to the latest packet; 0 without."""
        return self.figures.last - self.figures.first if self.figures.timed else 0

    @property
    def in_order(self) -> bool | None:
        """Whether no packet is earlier than the one before; None: packets without a time leave it open."""
        if self.figures.backward:
            return False
        return None if self.figures.untimed else True

    def per_second(self, amount: int) -> float:
        """`amount` over the duration; 0 without one."""
        return amount * NS / self.duration if self.duration else 0.0

    def record(self) -> dict[str, Any]:
        """The object that --json prints: integers for bytes and ns, RFC 3339 for times."""
        figures = self.figures
        timed = figures.timed
        found: dict[str, Any] = {
            "file": self.name,
            "format": self.format,
            "compression": self.compression,
            "file_size": self.size,
            "link_types": [linktype_name(linktype) for linktype in sorted(self._linktypes())],
            "packets": figures.packets,
            "bytes": figures.bytes,
            "captured_bytes": figures.captured,
            "start": rfc3339(figures.first) if timed else None,
            "end": rfc3339(figures.last) if timed else None,
            "duration_ns": self.duration if timed else None,
            "packets_per_second": self.per_second(figures.packets),
            "bits_per_second": self.per_second(figures.bytes * 8),
            "in_order": self.in_order,
            "out_of_order_packets": figures.backward,
            "untimed_packets": figures.untimed,
            "truncated_packets": figures.cut,
            "overlong_packets": figures.overlong,
            "malformed_packets": sum(n for name, n in self._statuses().items() if name in ("bad length", "malformed")),
            "status": self._statuses(),
            "sizes": self._sizes(),
            "largest_gap_ns": figures.gap if timed else None,
            "largest_gap_before_packet": figures.gap_before or None,
            "sections": [self._section(section) for section in self.blocks.sections],
            "interfaces": [_interface(number, *share) for number, share in enumerate(self.shares)],
            "resolved_names": {"ipv4": self.blocks.names[4], "ipv6": self.blocks.names[6]},
            "decryption_secrets": self.blocks.secrets,
            "packet_comments": [{"packet": number, "comment": text} for number, text in self.packet_comments],
            "damage": self.damage and {"offset": self.damage.offset, "reason": self.damage.reason},
        }
        if self.hashes is not None:
            found["hashes"] = self.hashes
        return {**found, **{name: table.record() for name, table in self.tables.items()}}

    def _statuses(self) -> dict[str, int]:
        return dict(zip(STATUS, self.figures.status, strict=True))

    def _sizes(self) -> dict[str, Any] | None:
        figures = self.figures
        if not figures.packets:
            return None
        percentiles = {str(p): figures.size_at(-(-figures.packets * p // 100)) for p in PERCENTILES}
        mean = figures.bytes / figures.packets
        return {"min": figures.least_size, "mean": mean, "max": figures.most_size, "percentiles": percentiles}

    def _section(self, section: Section) -> dict[str, Any]:
        return {
            "hardware": section.hardware,
            "os": section.os,
            "application": section.application,
            "comments": section.comments,
            "interfaces": len(section.interfaces),
        }


def _interface(number: int, interface: Interface, share: tuple[int, int]) -> dict[str, Any]:
    return {
        "number": number,
        "name": interface.name,
        "description": interface.description,
        "link_type": linktype_name(interface.linktype),
        "hardware": interface.hardware,
        "os": interface.os,
        "speed": interface.speed or None,
        "snaplen": interface.snaplen,
        "fcs_length": interface.fcs or None,
        "ticks_per_second": interface.ticks,
        "time_offset_s": interface.offset or 0,
        "filter": interface.filter,
        "comments": interface.comments,
        "statistics": interface.counters,
        "packets": share[0],
        "bytes": share[1],
    }


def rfc3339(ns: int) -> str:
    """A time in UTC, to the ns; years outside 0 to 9999 have more digits or a sign."""
    seconds, fraction = divmod(ns, NS)
    days, second = divmod(seconds, 86400)
    year, month, day = _civil(days)
    clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    return f"{year:04}-{month:02}-{day:02}T{clock}.{fraction:09}Z"


def _civil(days: int) -> tuple[int, int, int]:
    """The date in the Gregorian calendar, so many days after 1970-01-01: 400 years have 146 097 days."""
    era, day = divmod(days + 719468, 146097)  # counted from 1 March of year 0
    year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    return year + era * 400 + (month >= 10), month + 3 - 12 * (month >= 10), day - (153 * month + 2) // 5 + 1
