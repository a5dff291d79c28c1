"""Packets as objects: the only importer of dpkt, which makes the headers and computes the checksums."""

from __future__ import annotations

import struct
from collections import namedtuple
from collections.abc import Iterable, Iterator

import dpkt

from pcaptools.engines import linklayer
from pcaptools.engines.conversation import Datagram, Segment
from pcaptools.engines.generate import Address, Layout, check_version, link_header, parse_address, parse_port

TCP, UDP, SCTP = 6, 17, 132
TTL = 64

LARGEST = 65535
"""Bytes of an IPv4 packet, and of what follows an IPv6 header, at most."""

End = namedtuple("End", "address port")
"""One end of a conversation."""

DUMMY_PAIR = {4: "10.1.1.1,10.2.2.2", 6: "2001:db8::1,2001:db8::2"}
"""Addresses of dummy headers when none are given."""


def parse_end(text: str, port: int | None = None) -> End:
    """`10.0.0.1:80` or `[2001:db8::1]:80`; without a port where `port` stands in for it. Raises ValueError."""
    address, colon, behind = text.rpartition(":")
    bare = not colon or (":" in address and not address.endswith("]"))
    if bare and port is not None:
        return End(parse_address(text), port)
    if bare or not address:
        raise ValueError(f"'{text}' is not ADDRESS:PORT (an IPv6 address stands in brackets)")
    return End(parse_address(address), parse_port(behind))


def ip(source: Address, target: Address, protocol: int, payload: object, *, ident: int = 0) -> bytes:
    """An IPv4 or IPv6 packet. payload: bytes, or an object of dpkt, whose checksum is set. Raises ValueError when it is
    larger than its length field can say."""
    size = len(payload)  # type: ignore[arg-type]
    if size + (20 if source.version == 4 else 0) > LARGEST:
        raise ValueError(f"{size} bytes do not fit an IPv{source.version} packet")
    if source.version == 6:
        return _ipv6(source, target, protocol, payload, size)
    packet = dpkt.ip.IP(
        src=source.packed, dst=target.packed, p=protocol, ttl=TTL, id=ident & 0xFFFF, df=1, data=payload
    )
    return bytes(packet)


def _ipv6(source: Address, target: Address, protocol: int, payload: object, size: int) -> bytes:
    packet = dpkt.ip6.IP6(src=source.packed, dst=target.packed, nxt=protocol, hlim=TTL, plen=size, data=payload)
    data = bytes(packet)
    if protocol == UDP and isinstance(payload, dpkt.udp.UDP) and payload.sum == 0:
        return data[:46] + b"\xff\xff" + data[48:]  # a sum of zero is sent as its other form (RFC 8200 section 8.1)
    return data


def tcp(
    source: End, target: End, payload: bytes, *, seq: int, ack: int, flags: int, window: int, options: bytes = b"",
    ident: int = 0,
) -> bytes:  # fmt: skip
    """An IP packet with a TCP segment. options: padded to 4 bytes here. Raises ValueError."""
    options += b"\1" * (-len(options) % 4)
    segment = dpkt.tcp.TCP(
        sport=source.port, dport=target.port, seq=seq & 0xFFFFFFFF, ack=ack & 0xFFFFFFFF, flags=flags, win=window,
        off=5 + len(options) // 4, opts=options, data=payload,
    )  # fmt: skip
    return ip(source.address, target.address, TCP, segment, ident=ident)


def udp(source: End, target: End, payload: bytes, *, ident: int = 0) -> bytes:
    """An IP packet with a UDP datagram. Raises ValueError."""
    datagram = dpkt.udp.UDP(sport=source.port, dport=target.port, ulen=8 + len(payload), data=payload)
    return ip(source.address, target.address, UDP, datagram, ident=ident)


def sctp(source: End, target: End, payload: bytes, *, tag: int, ident: int = 0) -> bytes:
    """An IP packet with an SCTP packet whose chunks are `payload`. Raises ValueError."""
    head = struct.pack("!HHI", source.port, target.port, tag)
    crc = dpkt.crc32c.done(dpkt.crc32c.add(0xFFFFFFFF, head + bytes(4) + payload))
    return ip(source.address, target.address, SCTP, head + struct.pack("!I", crc) + payload, ident=ident)


def sctp_data(payload: bytes, *, protocol: int, number: int) -> bytes:
    """A DATA chunk (RFC 9260 section 3.3.1) that is a whole message. number: its transmission sequence number."""
    chunk = struct.pack("!BBHIHHI", 0, 3, 16 + len(payload), number & 0xFFFFFFFF, 0, number & 0xFFFF, protocol)
    return chunk + payload + bytes(-len(payload) % 4)


def frames(
    said: Iterable[tuple[int, Segment | Datagram]], client: End, server: End, layout: Layout
) -> Iterator[tuple[int, bytes]]:
    """A conversation (ns after the start, what was sent) as frames, each with its time in ns since the epoch."""
    version = client.address.version
    heads = [link_header(layout, version, side == 0, layout.vlan) for side in (0, 1)]
    idents = [layout.seed & 0xFFFF, layout.seed >> 16 & 0xFFFF]
    for time, item in said:
        source, target = (client, server) if item.side == 0 else (server, client)
        idents[item.side] += 1
        ident = idents[item.side]
        if isinstance(item, Datagram):
            packet = udp(source, target, item.payload, ident=ident)
        else:
            packet = tcp(
                source, target, item.payload, seq=item.seq, ack=item.ack, flags=item.flags, window=item.window,
                options=item.options, ident=ident,
            )  # fmt: skip
        yield layout.start + time, heads[item.side] + packet


class Dummy:
    """Headers to put in front of data: link layer, IP, transport, as far as wanted.

    client, server: the ends; protocol: `tcp`, `udp`, `sctp` (with tag), `data` (SCTP with a DATA chunk whose payload
    protocol is tag), the number of an IP protocol, or None; ethertype: of a link header without IP.
    """

    def __init__(
        self, layout: Layout, client: End, server: End, *, protocol: str | int | None = None,
        ethertype: int | None = None, tag: int = 0,
    ) -> None:  # fmt: skip
        self._layout = layout
        self._ends = (client, server)
        self._protocol = protocol
        self._ethertype = ethertype
        self._tag = tag
        self._sent = [0, 0]
        self._number = 0

    def wrap(self, data: bytes, side: int) -> bytes:
        """The frame around data of the client (0) or the server (1). Raises ValueError when it is too large for IP."""
        self._number += 1
        if self._protocol is None and self._ethertype is None:
            return data
        version = self._ends[0].address.version
        head = link_header(self._layout, version, side == 0, self._layout.vlan, self._ethertype)
        return head + (data if self._protocol is None else self._packet(data, side))

    def _packet(self, data: bytes, side: int) -> bytes:
        source, target, ident = self._ends[side], self._ends[1 - side], self._number
        if self._protocol == "udp":
            return udp(source, target, data, ident=ident)
        if self._protocol == "sctp":
            return sctp(source, target, data, tag=self._tag, ident=ident)
        if self._protocol == "data":
            chunk = sctp_data(data, protocol=self._tag, number=self._number - 1)
            return sctp(source, target, chunk, tag=0, ident=ident)
        if self._protocol == "tcp":
            seq, ack = self._sent[side], self._sent[1 - side]
            packet = tcp(source, target, data, seq=seq, ack=ack, flags=0x18, window=8192, ident=ident)
            self._sent[side] += len(data)
            return packet
        assert isinstance(self._protocol, int)
        return ip(source.address, target.address, self._protocol, data, ident=ident)


def dummy(layout: Layout, kind: str | None, text: str, pair: tuple[int, str | None]) -> Dummy:
    """The headers that an option asks for. kind: `ethertype`, `proto`, `udp`, `tcp`, `sctp`, `data`, or None; text: its
    value; pair: version of IP, and `SOURCE,DESTINATION` or None. Raises ValueError."""
    version, addresses = pair
    ends = [parse_address(field) for field in _fields(addresses or DUMMY_PAIR[version], 2)]
    if [end.version for end in ends] != [version, version]:
        raise ValueError(f"'{addresses}' are not two IPv{version} addresses")
    if kind is None:
        return Dummy(layout, End(ends[0], 0), End(ends[1], 0))
    if kind == "ethertype":
        if not linklayer.carries_ethertype(layout.linktype):
            raise ValueError("headers of this link type have no such field")
        return Dummy(layout, End(ends[0], 0), End(ends[1], 0), ethertype=_number(text, 0xFFFF, 16))
    check_version(layout, version)
    if kind == "proto":
        return Dummy(layout, End(ends[0], 0), End(ends[1], 0), protocol=_number(text, 255))
    fields = _fields(text, 3 if kind in ("sctp", "data") else 2)
    ports = [parse_port(field) for field in fields[:2]]
    tag = _number(fields[2], 0xFFFFFFFF) if len(fields) > 2 else 0
    return Dummy(layout, End(ends[0], ports[0]), End(ends[1], ports[1]), protocol=kind, tag=tag)


def _fields(text: str, wanted: int) -> list[str]:
    fields = text.split(",")
    if len(fields) != wanted:
        raise ValueError(f"'{text}' is not a list of {wanted}, with commas")
    return fields


def _number(text: str, most: int, base: int = 10) -> int:
    try:
        value = int(text, base)
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        raise ValueError(
            f"'{text}' is not a number up to {most:x} (hexadecimal)"
            if base == 16
            else f"'{text}' is not a number up to {most}"
        )
    return value
