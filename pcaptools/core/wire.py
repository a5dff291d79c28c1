"""Headers as they are on the wire: where each field is, TCP segments and IP packets taken apart and put together.

    Ethernet   0 destination   6 source       12 type (802.1Q: 0x8100, 14 tag, 16 type)
    IPv4       0 version, IHL  2 length        6 flags, fragment   8 TTL   9 protocol  10 sum  12 source  16 target
    IPv6       0 version       4 length        6 next header       7 hops              8 source 24 target
    TCP        0 source port   2 target port   4 seq   8 ack  12 header length  13 flags  14 window  16 sum  18 urgent
    UDP        0 source port   2 target port   4 length        6 sum

RFC 791, 8200, 9293, 768. `packet()` checks the lengths once; what it found can be read without further checks.
"""

from __future__ import annotations

import struct
from collections import namedtuple
from collections.abc import Iterator

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
IPV4, IPV6, ARP, VLAN = 0x0800, 0x86DD, 0x0806, 0x8100

IP_HEADER = {4: 20, 6: 40}
TCP_HEADER, UDP_HEADER = 20, 8
HOPS = 64

_END, _NOP, _MSS, _WSCALE, _SACK_OK, _SACK, _TIMESTAMPS = 0, 1, 2, 3, 4, 5, 8
BAD_OPTION = -1
_TIMESTAMPS_ONLY = b"\1\1\x08\x0a"

_TCP_FIELDS = struct.Struct("!HHIIBBHHH")
_UDP_FIELDS = struct.Struct("!HHHH")
_IPV4_FIELDS = struct.Struct("!BBHHHBBH")
_IPV6_FIELDS = struct.Struct("!IHBB")


class Seq(int):
    """A TCP sequence number: counts modulo 2^32; which of two is later is decided within half of that (RFC 9293, 3.4).

    Seq + int and Seq - int are a Seq; Seq - Seq is the distance as a signed int.
    """

    __slots__ = ()

    def __new__(cls, value: int) -> Seq:
        return int.__new__(cls, value & 0xFFFFFFFF)

    def __add__(self, other: int) -> Seq:
        return Seq(int(self) + int(other))

    def __sub__(self, other: int) -> int:
        if isinstance(other, Seq):
            return ((int(self) - int(other) + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        return Seq(int(self) - other)

    def __lt__(self, other: int) -> bool:
        return self - Seq(other) < 0

    def __gt__(self, other: int) -> bool:
        return self - Seq(other) > 0

    def __le__(self, other: int) -> bool:
        return self - Seq(other) <= 0

    def __ge__(self, other: int) -> bool:
        return self - Seq(other) >= 0

    __hash__ = int.__hash__

    def offset(self, number: int, near: int) -> int:
        """How far behind this one `number` is, as an int that does not wrap: the one nearest to `near`."""
        return near + ((number - int(self) - near + 0x80000000) & 0xFFFFFFFF) - 0x80000000


class Segment:
    """One TCP segment. seq, ack, window: as on the wire. mss, wscale, sack_ok: the options of a SYN, None or False when
    absent. sacks: (left, right) edges. stamps: (TSval, TSecr) or None. again: it was sent before."""

    __slots__ = ("ack", "again", "flags", "mss", "payload", "sack_ok", "sacks", "seq", "stamps", "window", "wscale")

    def __init__(
        self,
        seq: int,
        ack: int,
        flags: int,
        window: int,
        payload: bytes = b"",
        *,
        mss: int | None = None,
        wscale: int | None = None,
        sack_ok: bool = False,
        sacks: tuple[tuple[int, int], ...] = (),
        stamps: tuple[int, int] | None = None,
        again: bool = False,
    ) -> None:
        self.seq = seq
        self.ack = ack
        self.flags = flags
        self.window = window
        self.payload = payload
        self.mss = mss
        self.wscale = wscale
        self.sack_ok = sack_ok
        self.sacks = sacks
        self.stamps = stamps
        self.again = again

    @property
    def length(self) -> int:
        """Sequence numbers that it takes: its bytes, and one each for SYN and FIN."""
        return len(self.payload) + (self.flags >> 1 & 1) + (self.flags & 1)

    def options(self) -> bytes:
        """Its options as bytes, a multiple of four."""
        stamps = self.stamps
        if not self.flags & SYN and not self.sacks:
            return _TIMESTAMPS_ONLY + struct.pack("!II", *stamps) if stamps else b""
        out = b""
        if self.mss is not None:
            out += struct.pack("!BBH", _MSS, 4, self.mss)
        if self.sack_ok:
            out += bytes([_NOP, _NOP, _SACK_OK, 2])
        if stamps:
            out += _TIMESTAMPS_ONLY + struct.pack("!II", *stamps)
        if self.wscale is not None:
            out += bytes([_NOP, _WSCALE, 3, self.wscale])
        if self.sacks:
            edges = [edge for block in self.sacks for edge in block]
            out += bytes([_NOP, _NOP, _SACK, 2 + 4 * len(edges)]) + struct.pack(f"!{len(edges)}I", *edges)
        return out

    def __repr__(self) -> str:
        names = "".join(letter for bit, letter in zip((2, 1, 4, 8, 16), "SFRP.", strict=True) if self.flags & bit)
        return f"<{names} {self.seq}({len(self.payload)}) ack {self.ack} win {self.window}>"


def read_segment(data: bytes, at: int, end: int) -> Segment | None:
    """The TCP segment in data[at:end], None when it is damaged."""
    if end - at < TCP_HEADER:
        return None
    _, _, seq, ack, size, flags, window, _, _ = _TCP_FIELDS.unpack_from(data, at)
    body = at + (size >> 4) * 4
    if body < at + TCP_HEADER or body > end:
        return None
    segment = Segment(seq, ack, flags, window, data[body:end])
    if body > at + TCP_HEADER:
        _read_options(segment, data[at + TCP_HEADER : body])
    return segment


def _read_options(segment: Segment, options: bytes) -> None:
    if len(options) == 12 and options.startswith(_TIMESTAMPS_ONLY):
        segment.stamps = struct.unpack_from("!II", options, 4)
        return
    for kind, value in tcp_options(options):
        _read_option(segment, kind, value)


def tcp_options(options: bytes) -> Iterator[tuple[int, bytes]]:
    """The kind and value of each TCP option, as far as they can be read; what cannot ends them with kind BAD_OPTION."""
    at = 0
    while at < len(options) and options[at] != _END:
        if options[at] == _NOP:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 0
        if size < 2 or at + size > len(options):
            yield BAD_OPTION, b""
            return
        yield options[at], options[at + 2 : at + size]
        at += size


def _read_option(segment: Segment, kind: int, value: bytes) -> None:
    if kind == _MSS and len(value) == 2:
        segment.mss = value[0] << 8 | value[1]
    elif kind == _WSCALE and len(value) == 1:
        segment.wscale = min(value[0], 14)
    elif kind == _SACK_OK and not value:
        segment.sack_ok = True
    elif kind == _SACK and value and len(value) % 8 == 0:
        segment.sacks = tuple(struct.iter_unpack("!II", value))
    elif kind == _TIMESTAMPS and len(value) == 8:
        segment.stamps = struct.unpack("!II", value)


Packet = namedtuple("Packet", "version source target protocol transport end")
"""An IP packet: packed addresses, and offsets of what it carries."""

_EXTENSIONS = (0, 43, 60)


def packet(data: bytes, at: int) -> Packet | None:
    """The IP packet at an offset, None when there is none that is whole: fragments are not."""
    size = len(data)
    if size < at + 20:
        return None
    version = data[at] >> 4
    if version == 4:
        end = at + (data[at + 2] << 8 | data[at + 3])
        transport = at + (data[at] & 15) * 4
        if data[at + 6] & 0x3F or data[at + 7] or transport < at + 20 or not transport <= end <= size:
            return None
        return Packet(4, data[at + 12 : at + 16], data[at + 16 : at + 20], data[at + 9], transport, end)
    if version != 6 or size < at + 40:
        return None
    end = at + 40 + (data[at + 4] << 8 | data[at + 5])
    following, transport = data[at + 6], at + 40
    while following in _EXTENSIONS and transport + 8 <= min(end, size):
        following, transport = data[transport], transport + 8 + data[transport + 1] * 8
    if not transport <= end <= size:
        return None
    return Packet(6, data[at + 8 : at + 24], data[at + 24 : at + 40], following, transport, end)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071): a sum in ones' complement is a remainder modulo 2^16 - 1."""
    total = int.from_bytes(data + bytes(len(data) % 2), "big")
    return 0xFFFF ^ (total % 0xFFFF or (0xFFFF if total else 0))


def pseudo_header(source: bytes, target: bytes, protocol: int, length: int) -> bytes:
    """What checksums of TCP, UDP and ICMPv6 count besides (it sums up alike for both versions)."""
    return source + target + struct.pack("!IHH", length, 0, protocol)


def sound(data: bytes, found: Packet) -> bool:
    """Whether the checksum of what the packet carries is right."""
    body = data[found.transport : found.end]
    if found.protocol == UDP and body[6:8] == b"\0\0":
        return found.version == 4
    if found.protocol == ICMP:
        return checksum(body) == 0
    return checksum(pseudo_header(found.source, found.target, found.protocol, len(body)) + body) == 0


class Path:
    """The headers of all packets from one end of a flow to the other, but for what changes. Checksums are left to who
    sends: they are zero (of UDP 1, since 0 means none)."""

    __slots__ = ("_link", "_sport", "_tail", "_version", "dport")

    def __init__(self, link: bytes, source: bytes, target: bytes, sport: int, dport: int) -> None:
        """link: the header in front of IP; source, target: packed addresses."""
        self._link = link
        self._tail = source + target
        self._version = 4 if len(source) == 4 else 6
        self._sport = sport
        self.dport = dport

    def _ip(self, protocol: int, length: int) -> bytes:
        if self._version == 4:
            return self._link + _IPV4_FIELDS.pack(0x45, 0, 20 + length, 0, 0x4000, HOPS, protocol, 0) + self._tail
        return self._link + _IPV6_FIELDS.pack(0x60000000, length, protocol, HOPS) + self._tail

    def tcp(self, segment: Segment) -> bytes:
        """A frame with a segment."""
        options = segment.options()
        size = TCP_HEADER + len(options)
        head = _TCP_FIELDS.pack(
            self._sport, self.dport, segment.seq, segment.ack, size << 2, segment.flags, segment.window, 0, 0
        )
        return self._ip(TCP, size + len(segment.payload)) + head + options + segment.payload

    def udp(self, payload: bytes) -> bytes:
        """A frame with a datagram."""
        size = UDP_HEADER + len(payload)
        return self._ip(UDP, size) + _UDP_FIELDS.pack(self._sport, self.dport, size, 1) + payload


def ethernet(target: bytes, source: bytes, ethertype: int, vlan: int | None = None) -> bytes:
    """An Ethernet header, with an 802.1Q tag where `vlan` is not None."""
    tag = struct.pack("!HH", VLAN, vlan) if vlan is not None else b""
    return target + source + tag + struct.pack("!H", ethertype)
