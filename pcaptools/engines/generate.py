"""Captures that are made: what the options of pcapgen mean, the native generators, and packets as batches.

The SYN flood and the mix are native (core/csrc/generate.h, mix.h); what is made as objects comes here as bytes.
"""

from __future__ import annotations

import ipaddress
import struct
from collections import namedtuple
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction

from pcaptools.core._core import Cutter
from pcaptools.core._generate import Flood, Mix
from pcaptools.core.batch import Batch
from pcaptools.core.linktype import name
from pcaptools.core.numbers import parse_number
from pcaptools.core.times import SECOND, parse_time
from pcaptools.engines import linklayer
from pcaptools.engines.convert import pcap_header

START = 1_700_000_000 * SECOND
"""Time of the first packet, ns since the epoch, when nothing else is asked for."""

END = 1 << 32
"""s since the epoch: where the times of classic pcap end."""

LARGEST = 262144
"""Bytes of the largest packet that readers accept."""

MOST = 1 << 40
"""Packets of a capture, at most."""

_PROBABILITY = 1 << 32
_BATCH = 1 << 20

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

Range = namedtuple("Range", "first size")
"""So many addresses from the first one on."""

Layout = namedtuple("Layout", "linktype nanoseconds start seed source target vlan least")
"""What all captures that are made have in common: link type; whether times are in ns or in us; time of the first packet
in ns since the epoch; seed; MAC addresses of client and server; VLAN number or None; least bytes of a frame."""


# Values


def parse_start(text: str) -> int:
    """The time of a first packet, in ns since the epoch. Raises ValueError."""
    ns = parse_time(text)
    if not 0 <= ns < END * SECOND:
        raise ValueError(f"'{text}' is not between 1970 and 2106, where the times of captures end")
    return ns


def parse_seconds(text: str) -> int:
    """A positive time span in seconds, as ns. Raises ValueError."""
    try:
        ns = int(parse_number(text) * SECOND)
    except ValueError:
        raise ValueError(f"'{text}' is not a number of seconds") from None
    if not 0 < ns < END * SECOND:
        raise ValueError(f"'{text}' seconds are out of range")
    return ns


def parse_milliseconds(text: str) -> int:
    """A time span of 0 ms to 60000 ms, as ns. Raises ValueError."""
    try:
        ns = int(parse_number(text) * SECOND / 1000)
    except ValueError:
        raise ValueError(f"'{text}' is not a number of ms") from None
    if not 0 <= ns <= 60 * SECOND:
        raise ValueError(f"'{text}' is not between 0 and 60000 ms")
    return ns


def parse_percent(text: str) -> Fraction:
    """0 to 100, as a share of 1. Raises ValueError."""
    try:
        share = parse_number(text.removesuffix("%")) / 100
    except ValueError:
        raise ValueError(f"'{text}' is not a percentage") from None
    if not 0 <= share <= 1:
        raise ValueError(f"'{text}' is not between 0 and 100 percent")
    return share


def parse_port(text: str) -> int:
    """0 to 65535. Raises ValueError."""
    if not (text.isascii() and text.isdigit()) or int(text) > 65535:
        raise ValueError(f"'{text}' is not a port")
    return int(text)


def parse_vlan(text: str) -> int:
    """0 to 4094. Raises ValueError."""
    if not (text.isascii() and text.isdigit()) or int(text) > 4094:
        raise ValueError(f"'{text}' is not the number of a VLAN: 0 to 4094")
    return int(text)


def parse_count(text: str) -> int:
    """1 or more packets or flows. Raises ValueError."""
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) <= MOST:
        raise ValueError(f"'{text}' is not between 1 and {MOST}")
    return int(text)


def parse_seed(text: str) -> int:
    """0 to 2^64 - 1. Raises ValueError."""
    if not (text.isascii() and text.isdigit()) or int(text) >= 1 << 64:
        raise ValueError(f"'{text}' is not between 0 and 2^64 - 1")
    return int(text)


def parse_address(text: str) -> Address:
    """An IPv4 or IPv6 address. Raises ValueError."""
    try:
        return ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise ValueError(f"'{text}' is not an IP address") from None


def parse_range(text: str) -> Range:
    """An address, a network such as 10.0.0.0/8, or FIRST-LAST. Raises ValueError."""
    first, dash, last = text.partition("-")
    if dash:
        ends = parse_address(first), parse_address(last)
        if ends[0].version != ends[1].version or int(ends[0]) > int(ends[1]):
            raise ValueError(f"'{text}' is no range: its end is not behind its beginning")
        return Range(ends[0], int(ends[1]) - int(ends[0]) + 1)
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"'{text}' is not an address, a network or a range: {error}") from None
    return Range(network.network_address, network.num_addresses)


# The native generators


def link_header(
    layout: Layout, version: int, outgoing: bool, vlan: int | None, ethertype: int | None = None
) -> bytes:  # fmt: skip
    """What stands in front of a packet of this IP version, or of an EtherType, from the client (outgoing) or to it."""
    source, target = (layout.source, layout.target) if outgoing else (layout.target, layout.source)
    return linklayer.header(
        layout.linktype, version, outgoing=outgoing, source=source, target=target, vlan=vlan, ethertype=ethertype
    )


def check_version(layout: Layout, version: int) -> None:
    """Raises ValueError where the link type does not carry that version of IP."""
    if not linklayer.carries_ip(layout.linktype, version):
        raise ValueError(f"frames of {name(layout.linktype)} carry no IPv{version}")


def check_end(layout: Layout, duration: int) -> None:
    """Raises ValueError where times go beyond what captures can say. duration: ns."""
    if layout.start + duration >= END * SECOND:
        raise ValueError("the last packet's time is beyond 2106, where the times of captures end")


def flood(
    layout: Layout, source: Range, target: Address, dport: int, first_port: int, packets: int, pps: Fraction
) -> Flood:
    """One SYN per source address; when all had one, again with the next source port. Raises ValueError."""
    if source.first.version != target.version:
        raise ValueError(f"sources are IPv{source.first.version}, the destination is IPv{target.version}")
    check_version(layout, target.version)
    check_end(layout, int(packets * SECOND / pps))
    interval = SECOND / Fraction(pps)
    whole, part = divmod(interval.numerator, interval.denominator)
    return Flood(
        linktype=layout.linktype, header=link_header(layout, target.version, True, layout.vlan),
        source=source.first.packed, target=target.packed, addresses=min(source.size, 1 << 63),
        ports=(first_port, 65535), dport=dport, packets=packets, interval=(whole, part, interval.denominator),
        start=layout.start, seed=layout.seed, least=layout.least, nanoseconds=layout.nanoseconds,
    )  # fmt: skip


def mix(
    layout: Layout, flows: int, packets: int, duration: int, *,
    vlan_share: Fraction, ipv6_share: Fraction, loss: Fraction, reorder: Fraction,
) -> Mix:  # fmt: skip
    """A mix of traffic over `duration` ns. loss, reorder: of the data segments of TCP. Raises ValueError."""
    if flows > packets:
        raise ValueError(f"{flows} flows do not fit {packets} packets: a flow has at least one")
    if vlan_share and not linklayer.carries_vlan(layout.linktype):
        raise ValueError(f"frames of {name(layout.linktype)} carry no VLAN tag")
    versions = [version for version, share in ((4, 1 - ipv6_share), (6, ipv6_share)) if share]
    for version in versions:
        check_version(layout, version)
    check_end(layout, duration)
    headers = {
        (int(version == 6), side, tagged): link_header(layout, version, not side, 0 if tagged else None)
        for version in versions
        for side in (0, 1)
        for tagged in (0, 1)
        if not tagged or linklayer.carries_vlan(layout.linktype)
    }
    return Mix(
        linktype=layout.linktype, headers=headers, flows=flows, packets=packets, duration=duration,
        start=layout.start, seed=layout.seed, vlan_share=_probability(vlan_share),
        ipv6_share=_probability(ipv6_share), loss=_probability(loss),
        reorder=min(_PROBABILITY, 2 * _probability(reorder)),  # of two segments, either may come first
        least=layout.least, nanoseconds=layout.nanoseconds,
    )  # fmt: skip


def _probability(share: Fraction) -> int:
    return int(share * _PROBABILITY)


def truth(generator: Mix, layout: Layout, duration: int) -> Mapping[str, object]:
    """What a mix holds, by construction. Nothing in it grows with the number of packets or flows: counts, flows by
    size in powers of two, and the largest flows."""
    counts = generator.counts
    kinds = dict(zip(("tcp", "http", "refused", "unanswered", "dns", "udp"), counts["flows"], strict=True))
    tcp = sum(counts["flows"][:4])
    return {
        "seed": layout.seed,
        "linktype": layout.linktype,
        "start": layout.start,
        "duration": duration,
        "packets": counts["packets"],
        "bytes": counts["bytes"],
        "flows": sum(counts["flows"]),
        "flows_by_kind": kinds,
        "flows_by_size": {str(1 << k): n for k, n in enumerate(counts["classes"]) if n},
        "tcp": {"flows": tcp, "packets": counts["tcp"], "reused_tuples": counts["reused"]}
        | {name: counts[name] for name in ("syn", "syn_ack", "fin", "rst", "retransmissions", "syn_retransmissions")}
        | {"out_of_order": counts["out_of_order"]},
        "udp": {"flows": kinds["dns"] + kinds["udp"], "packets": counts["udp"]},
        "dns": {name: counts[f"dns_{name}"] for name in ("queries", "responses", "missing")},
        "http": {name: counts[f"http_{name}"] for name in ("requests", "responses")},
        "vlan": {"flows": counts["vlan_flows"], "packets": counts["vlan"]},
        "ipv6": {"flows": counts["ipv6_flows"], "packets": counts["ipv6"]},
        "largest_flows": [_large(tuple(kinds), layout, *flow) for flow in generator.largest],
    }


def _large(
    kinds: tuple[str, ...], layout: Layout, kind: int, client: tuple[bytes, int], server: tuple[bytes, int], vlan: int,
    packets: int, size: int, begun: int, ended: int,
) -> Mapping[str, object]:  # fmt: skip
    return {
        "kind": kinds[kind],
        "client": [str(ipaddress.ip_address(client[0])), client[1]],
        "server": [str(ipaddress.ip_address(server[0])), server[1]],
        "vlan": vlan or None,
        "packets": packets,
        "bytes": size,
        "first": layout.start + begun,
        "last": layout.start + ended,
    }


# Batches


def capture(batches: Iterable[Batch], linktype: int, format: str) -> Iterator[Batch]:
    """The batches with the file header that they need. pcapng has its own, which its converter adds."""
    if format != "pcapng":
        head = Batch(4096)
        head.append(pcap_header(linktype, nanoseconds=format == "nspcap"))
        head.skip(head.filled)
        yield head
    yield from batches


def filled(generator: Flood | Mix) -> Iterator[Batch]:
    """All that a native generator makes, in one batch used again and again."""
    batch = Batch(_BATCH)
    while generator.fill(batch):
        yield batch


def framed(packets: Iterable[tuple[int, bytes]], layout: Layout) -> Iterator[Batch]:
    """Frames, each with its time in ns since the epoch, as batches of classic pcap records."""
    cutter = Cutter("pcap", nanoseconds=layout.nanoseconds, linktype=layout.linktype, snaplen=LARGEST)
    batch = Batch(_BATCH)
    unit = 1 if layout.nanoseconds else 1000
    for time, data in packets:
        data = data.ljust(layout.least, b"\0")
        if batch.filled and batch.filled + len(data) > _BATCH // 2:
            yield from _cut(cutter, batch)
        seconds, fraction = divmod(time, SECOND)
        batch.append(struct.pack("=IIII", seconds, fraction // unit, len(data), len(data)) + data)
    yield from _cut(cutter, batch)


def _cut(cutter: Cutter, batch: Batch) -> Iterator[Batch]:
    cutter.cut(batch)
    if batch.n:
        yield batch
    batch.clear()
