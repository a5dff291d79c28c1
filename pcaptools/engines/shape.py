"""A capture of the shape that a manifest of flows tells: as many packets and bytes, at these times, between these ends.

What was said is not in a manifest: payloads are zeros. The packets of a flow are spread evenly from its first to its
last one; a TCP flow begins with the SYNs and ends with the FIN or RST that were seen.
"""

from __future__ import annotations

import csv
import heapq
import ipaddress
import json
from collections import namedtuple
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pcaptools.engines import craft, linklayer
from pcaptools.engines.craft import End
from pcaptools.engines.generate import SECOND, Layout, link_header

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
WINDOW = 65535

_NUMBERS = {
    "icmp": 1, "igmp": 2, "ipip": 4, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmpv6": 58, "ospf": 89,
    "sctp": 132, "udplite": 136,
}  # fmt: skip

Told = namedtuple("Told", "proto client server vlan first last packets bytes flags started")
"""One flow: `End`s, times in ns, packets and bytes of the client and of the server, their TCP flags."""


def parse(lines: Iterable[str]) -> Iterator[Told]:
    """The flows of a manifest, CSV or lines of JSON. Raises ValueError."""
    iterator = iter(lines)
    first = next(iterator, "")
    if first.startswith("{"):
        found: Iterable[Mapping[str, Any]] = map(json.loads, _chained(first, iterator))
    else:
        found = csv.DictReader(_chained(first, iterator))
    for number, row in enumerate(found, 1):
        try:
            yield _told(row)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"flow {number} cannot be understood: {error}") from None


def _chained(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _told(row: Mapping[str, Any]) -> Told:
    ends = [End(ipaddress.ip_address(row[name]), int(row[f"{name}_port"] or 0)) for name in ("client", "server")]
    first, last = (_ns(row[name]) for name in ("first", "last"))
    return Told(
        proto=row["proto"], client=ends[0], server=ends[1], vlan=int(str(row["vlan"]).split(".")[0] or 0) or None,
        first=first, last=max(first, last), packets=(int(row["packets_out"]), int(row["packets_in"])),
        bytes=(int(row["bytes_out"]), int(row["bytes_in"])), flags=(row["flags_out"], row["flags_in"]),
        started=row["started"],
    )  # fmt: skip


def _ns(text: str) -> int:
    seconds, _, fraction = str(text).partition(".")
    return int(seconds) * SECOND + int(fraction.ljust(9, "0")[:9])


def shaped(flows: Iterable[Told], layout: Layout) -> Iterator[tuple[int, bytes]]:
    """Frames of all flows, with their times, in order of time. The flows must be in order of their first packets."""
    waiting: list[tuple[int, int, bytes, Iterator[tuple[int, bytes]]]] = []
    for number, flow in enumerate(flows):
        while waiting and waiting[0][0] <= flow.first:
            yield _advance(waiting)
        frames = iter(_frames(flow, layout))
        for time, frame in frames:
            heapq.heappush(waiting, (time, number, frame, frames))
            break
    while waiting:
        yield _advance(waiting)


def _advance(waiting: list[tuple[int, int, bytes, Iterator[tuple[int, bytes]]]]) -> tuple[int, bytes]:
    """Take the earliest frame, and put its flow's next one in its place."""
    time, number, frame, frames = waiting[0]
    following = next(frames, None)
    if following is None:
        heapq.heappop(waiting)
    else:
        heapq.heapreplace(waiting, (following[0], number, following[1], frames))
    return time, frame


def _sides(packets: tuple[int, int], client_first: bool) -> Iterator[int]:
    """Who sends each packet: both sides evenly mixed."""
    sent = [0, 0]
    for _ in range(sum(packets)):
        ahead = sent[0] * packets[1] - sent[1] * packets[0]
        side = int(ahead > 0 if client_first else ahead >= 0)
        if sent[side] == packets[side]:
            side = 1 - side
        yield side
        sent[side] += 1


def _frames(flow: Told, layout: Layout) -> Iterator[tuple[int, bytes]]:
    version = flow.client.address.version
    vlan = flow.vlan if linklayer.carries_vlan(layout.linktype) else None
    heads = [link_header(layout, version, side == 0, vlan) for side in (0, 1)]
    overhead = len(heads[0]) + (20 if version == 4 else 40)
    total, sent = sum(flow.packets), [0, 0]
    position = [1000, 5000]
    for number, side in enumerate(_sides(flow.packets, flow.packets[0] > 0)):
        k = sent[side]
        size = _size(flow, side, k, overhead)
        time = flow.first + (flow.last - flow.first) * number // max(total - 1, 1)
        yield time, heads[side] + _packet(flow, side, k, size, position)
        sent[side] += 1


def _size(flow: Told, side: int, k: int, overhead: int) -> int:
    """Bytes behind the IP header of a side's packet k: what a SYN needs, and the rest evenly."""
    n, total = flow.packets[side], flow.bytes[side]
    if flow.proto == "tcp" and "S" in flow.flags[side] and n > 1:
        if k == 0:
            return 20
        k, n, total = k - 1, n - 1, total - overhead - 20
    return max((k + 1) * total // n - k * total // n - overhead, 0)


def _packet(flow: Told, side: int, k: int, size: int, position: list[int]) -> bytes:
    """The IP packet with `size` bytes behind its header. k: so many were sent by that side before."""
    source, target = (flow.client, flow.server) if side == 0 else (flow.server, flow.client)
    if flow.proto == "tcp":
        flags = _flags(flow, side, k)
        data = bytes(max(size - 20, 0))
        seq, ack = position[side], position[1 - side] if flags & ACK else 0
        position[side] += len(data) + bool(flags & (SYN | FIN))
        return craft.tcp(source, target, data, seq=seq, ack=ack, flags=flags, window=WINDOW)
    if flow.proto == "udp":
        return craft.udp(source, target, bytes(max(size - 8, 0)))
    if flow.proto == "sctp":
        return craft.sctp(source, target, bytes(max(size - 12, 0) & ~3), tag=1)
    number = _NUMBERS.get(flow.proto) or int(flow.proto.removeprefix("ip") or 253)
    return craft.ip(source.address, target.address, number, bytes(size))


def _flags(flow: Told, side: int, k: int) -> int:
    seen = flow.flags[side]
    if k == 0 and "S" in seen:
        return SYN if side == 0 else SYN | ACK
    last = k == flow.packets[side] - 1
    if last and "R" in seen:
        return RST | ACK
    if last and "F" in seen:
        return FIN | ACK
    return ACK | (PSH if "P" in seen else 0)
