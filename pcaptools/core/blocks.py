"""What the blocks of a pcapng say that are not packets: sections, interfaces, statistics, names, secrets, comments.

Specification: draft-ietf-opsawg-pcapng, sections 4.1 (section header), 4.2 (interface description), 4.5 (name
resolution), 4.6 (interface statistics), 4.7 (decryption secrets). The cutter has validated block lengths; an option
that reaches beyond its block ends the options.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pcaptools.core._core import NativeBatch
from pcaptools.core._info import other_blocks, packet_options

SECTION, INTERFACE, NAMES, STATISTICS, SECRETS = 0x0A0D0D0A, 1, 4, 5, 10

COMMENT = 1

_COUNTERS = {4: "received", 5: "dropped", 6: "filter_accepted", 7: "os_dropped", 8: "delivered"}

Options = list[tuple[int, bytes]]


class Interface:
    """One interface as its section describes it.

    resolution: if_tsresol; None where the block has none (then 6 holds). offset: if_tsoffset in s, None likewise.
    instructions: of a BPF program as filter, None where the filter is text. counters: of the last statistics block.
    """

    __slots__ = (
        "comments", "counters", "description", "fcs", "filter", "hardware", "instructions", "linktype", "name",
        "offset", "os", "resolution", "snaplen", "speed", "statistics",
    )  # fmt: skip

    def __init__(self, linktype: int, snaplen: int) -> None:
        self.linktype = linktype
        self.snaplen = snaplen
        self.resolution: int | None = None
        self.offset: int | None = None
        self.name = self.description = self.filter = self.hardware = self.os = ""
        self.speed = self.fcs = 0
        self.instructions: int | None = None
        self.comments: list[str] = []
        self.statistics = 0
        self.counters: dict[str, int] = {}

    @property
    def ticks(self) -> int:
        """Of its clock, each second."""
        resolution = 6 if self.resolution is None else self.resolution
        return 1 << (resolution & 0x7F) if resolution & 0x80 else int(10**resolution)


class Section:
    """One section: what its header says, and its interfaces."""

    def __init__(self) -> None:
        self.hardware = self.os = self.application = ""
        self.comments: list[str] = []
        self.interfaces: list[Interface] = []


class Blocks:
    """Everything of one capture that is not in its packets. names: resolved names by IP version."""

    def __init__(self) -> None:
        self.sections: list[Section] = []
        self.names = {4: 0, 6: 0}
        self.secrets = 0

    @property
    def interfaces(self) -> list[Interface]:
        """Of all sections, numbered as the reader numbers them."""
        return [interface for section in self.sections for interface in section.interfaces]

    def describe_pcap(self, linktype: int, snaplen: int, nanoseconds: bool) -> None:
        """A classic capture: one section, one interface."""
        interface = Interface(linktype, snaplen)
        interface.resolution = 9 if nanoseconds else None
        self.sections = [Section()]
        self.sections[0].interfaces.append(interface)

    def feed(self, batch: NativeBatch) -> None:
        """Read the blocks of a batch as it came from the reader."""
        found = other_blocks(batch)
        if not found:
            return
        view = batch.view()
        order = _order(batch)
        for kind, start, total in found:
            reader = _READERS.get(kind)
            if reader:
                reader(self, bytes(view[start + 8 : start + total - 4]), order)

    def _section(self, body: bytes, order: str) -> None:
        section = Section()
        self.sections.append(section)
        for code, value in _options(body[16:], order):
            if code == COMMENT:
                section.comments.append(text(value))
            elif code == 2:
                section.hardware = text(value)
            elif code == 3:
                section.os = text(value)
            elif code == 4:
                section.application = text(value)

    def _interface(self, body: bytes, order: str) -> None:
        linktype, _, snaplen = struct.unpack_from(order + "HHI", body)
        interface = Interface(linktype, snaplen)
        self.sections[-1].interfaces.append(interface)
        for code, value in _options(body[8:], order):
            _set_option(interface, code, value, order)

    def _names(self, body: bytes, order: str) -> None:
        at = 0
        while len(body) - at >= 4:
            kind, size = struct.unpack_from(order + "HH", body, at)
            if kind == 0:
                break
            version, address = {1: (4, 4), 2: (6, 16)}.get(kind, (0, 0))
            if version:
                names = body[at + 4 + address : at + 4 + size].rstrip(b"\0")
                self.names[version] += names.count(b"\0") + 1 if names else 0
            at += 4 + (size + 3 & ~3)

    def _statistics(self, body: bytes, order: str) -> None:
        number = struct.unpack_from(order + "I", body)[0] if len(body) >= 12 else -1
        if not 0 <= number < len(self.sections[-1].interfaces):
            return
        interface = self.sections[-1].interfaces[number]
        interface.statistics += 1
        for code, value in _options(body[12:], order):
            if code in _COUNTERS and len(value) == 8:
                interface.counters[_COUNTERS[code]] = struct.unpack(order + "Q", value)[0]

    def _secrets(self, body: bytes, order: str) -> None:
        self.secrets += 1


_READERS = {
    SECTION: Blocks._section,
    INTERFACE: Blocks._interface,
    NAMES: Blocks._names,
    STATISTICS: Blocks._statistics,
    SECRETS: Blocks._secrets,
}


def packet_comments(batch: NativeBatch) -> Iterator[tuple[int, str]]:
    """(number in the batch, text) of every comment on a packet."""
    order = _order(batch)
    view = batch.view()
    for k, start, end in packet_options(batch):
        for code, value in _options(bytes(view[start:end]), order):
            if code == COMMENT:
                yield k, text(value)


def text(value: bytes) -> str:
    """A string of a block; bytes that are no UTF-8 stay what they are (surrogateescape)."""
    return value.rstrip(b"\0").decode("utf-8", "surrogateescape")


def _order(batch: NativeBatch) -> str:
    """struct's sign for the byte order of the batch's headers."""
    import sys

    return "<" if (sys.byteorder == "little") != batch.swapped else ">"


def _options(body: bytes, order: str) -> Options:
    found = []
    at = 0
    while len(body) - at >= 4:
        code, size = struct.unpack_from(order + "HH", body, at)
        if code == 0 or at + 4 + size > len(body):
            break
        found.append((code, body[at + 4 : at + 4 + size]))
        at += 4 + (size + 3 & ~3)
    return found


def _set_option(interface: Interface, code: int, value: bytes, order: str) -> None:
    """Options of an interface description block."""
    if code == COMMENT:
        interface.comments.append(text(value))
    elif code in _TEXTS:
        setattr(interface, _TEXTS[code], text(value))
    elif code == 8 and len(value) == 8:
        interface.speed = struct.unpack(order + "Q", value)[0]
    elif code == 9 and value:
        interface.resolution = value[0]
    elif code == 11 and value[:1] == b"\0":
        interface.filter = text(value[1:])
    elif code == 11 and value[:1] == b"\1":
        interface.instructions = (len(value) - 1) // 8
    elif code == 13 and value:
        interface.fcs = value[0]
    elif code == 14 and len(value) == 8:
        interface.offset = struct.unpack(order + "q", value)[0]


_TEXTS = {2: "name", 3: "description", 12: "os", 15: "hardware"}
