"""Link layer headers to put in front of an IP packet.

Link types: https://www.tcpdump.org/linktypes.html. Each layout has a builder; those whose header names the protocol by
an EtherType carry a VLAN tag (IEEE 802.1Q) too.
"""

from __future__ import annotations

import struct
from collections import namedtuple
from collections.abc import Callable

from pcaptools.core.linktype import ETHERNET, TABLE

ETHERNET_LEAST = 60
"""Bytes of the shortest Ethernet frame, without its checksum (IEEE 802.3)."""

CLIENT_MAC = bytes.fromhex("020000000001")
SERVER_MAC = bytes.fromhex("020000000002")

_VLAN = 0x8100
_SNAP = bytes.fromhex("aaaa03000000")
_BSSID = bytes.fromhex("0200000000ff")

Frame = namedtuple("Frame", "type source target outgoing")
"""What a header says: EtherType, MAC addresses (6 bytes), and whether the capturing host sent it."""


def _ethertype(version: int) -> int:
    return 0x0800 if version == 4 else 0x86DD


def _v(version4: bytes, version6: bytes) -> Callable[[Frame], bytes]:
    """A header that tells the IP version and nothing else."""
    return lambda frame: version4 if frame.type == 0x0800 else version6


def _ethernet(frame: Frame) -> bytes:
    return frame.target + frame.source + struct.pack("!H", frame.type)


def _cooked(frame: Frame) -> bytes:
    return struct.pack("!HHH8sH", 4 * frame.outgoing, 1, 6, frame.source, frame.type)


def _cooked2(frame: Frame) -> bytes:
    return struct.pack("!HHIHBB8s", frame.type, 0, 1, 1, 4 * frame.outgoing, 6, frame.source)


def _snap(frame: Frame) -> bytes:
    return _SNAP + struct.pack("!H", frame.type)


def _fddi(frame: Frame) -> bytes:
    return b"\x50" + frame.target + frame.source + _snap(frame)


def _ieee80211(frame: Frame) -> bytes:
    """A data frame to the access point, or from it."""
    addresses = (_BSSID, frame.source, frame.target) if frame.outgoing else (frame.target, _BSSID, frame.source)
    return struct.pack("<BBH6s6s6sH", 8, 1 if frame.outgoing else 2, 0, *addresses, 0) + _snap(frame)


def _radio(frame: Frame) -> bytes:
    return bytes.fromhex("0000080000000000") + _ieee80211(frame)


_PPP = _v(bytes.fromhex("ff030021"), bytes.fromhex("ff030057"))

_BUILDERS: dict[int, Callable[[Frame], bytes]] = {
    0: _v(struct.pack("<I", 2), struct.pack("<I", 30)),
    1: _ethernet,
    9: _PPP,
    10: _fddi,
    50: _PPP,
    100: _snap,
    101: lambda frame: b"",
    104: lambda frame: struct.pack("!HH", 0x0F00, frame.type),
    105: _ieee80211,
    107: _v(bytes.fromhex("040103cc"), bytes.fromhex("0401038e")),
    108: _v(struct.pack("!I", 2), struct.pack("!I", 24)),
    113: _cooked,
    127: _radio,
    204: lambda frame: bytes([frame.outgoing]) + _PPP(frame),
    228: lambda frame: b"",
    229: lambda frame: b"",
    276: _cooked2,
}

_TAGGED = {ETHERNET, 113, 276}
_TYPED = _TAGGED | {10, 100, 104, 105, 127}
_ONLY = {228: 4, 229: 6}


def parse(text: str) -> int:
    """A link type by number or name. Raises ValueError."""
    names = {row.name: row.number for row in reversed(TABLE) if row.number in _BUILDERS}
    number = int(text) if text.isascii() and text.isdigit() else names.get(text.upper())
    if number not in _BUILDERS:
        known = ", ".join(f"{name} ({number})" for name, number in sorted(names.items(), key=lambda item: item[1]))
        raise ValueError(f"'{text}' is none of {known}")
    return number


def parse_any(text: str) -> int:
    """A link type by number, even one that no header is known for, or by name. Raises ValueError."""
    return int(text) if text.isascii() and text.isdigit() and int(text) < 1 << 16 else parse(text)


def carries_ethertype(linktype: int) -> bool:
    """Whether headers of this link type name the protocol by its EtherType."""
    return linktype in _TYPED


def carries_vlan(linktype: int) -> bool:
    """Whether frames of this link type can have a VLAN tag."""
    return linktype in _TAGGED


def carries_ip(linktype: int, version: int) -> bool:
    """Whether frames of this link type can carry this version of IP."""
    return _ONLY.get(linktype, version) == version


def header(
    linktype: int,
    version: int,
    *,
    outgoing: bool = True,
    source: bytes = CLIENT_MAC,
    target: bytes = SERVER_MAC,
    vlan: int | None = None,
    ethertype: int | None = None,
) -> bytes:
    """What stands in front of a packet of this IP version. source, target: MAC addresses (6 bytes) where the link has
    them; outgoing: whether the capturing host sent it; ethertype: instead of that of IP."""
    wanted = _ethertype(version) if ethertype is None else ethertype
    build = _BUILDERS[linktype]
    if vlan is None:
        return build(Frame(wanted, source, target, outgoing))
    return build(Frame(_VLAN, source, target, outgoing)) + struct.pack("!HH", vlan, wanted)
