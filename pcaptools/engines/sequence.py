"""A session as a time-sequence graph: which bytes were sent when, what was acknowledged, what the window allowed.

Of each direction: a segment is a line from its first byte to behind its last at the time when it was seen; the
acknowledgements and the window's edge of the other side are steps; SACK blocks (RFC 2018) are lines like segments.
Times are s since the session's first segment, sequence numbers count from the initial one and do not wrap.
"""

from __future__ import annotations

import struct
from collections import namedtuple
from collections.abc import Iterable, Iterator, Sequence

from pcaptools.core.wire import Seq, tcp_options
from pcaptools.engines.sessions import ACK, BIT, FIN, RETRANSMITTED, RST, SYN, Segment

KINDS = ("data", "retransmission", "out of order", "keep-alive or probe")
"""Of segments."""

Graph = namedtuple("Graph", "direction segments acks window sacks marks rtts")
"""One direction, 0: from the client. segments: {kind: [(time, low, high)]}; acks, window: [(time, sequence number)];
sacks: [(time, low, high)]; marks: {"SYN" | "FIN" | "RST" | "zero window": [(time, sequence number)]}; rtts: [(time,
ms)], of the acknowledgements that came for it."""

_SACK = 5
_PROBES = BIT["keep_alive"] | BIT["zero_window_probe"]


def graphs(rows: Sequence[Segment]) -> list[Graph]:
    """Of both directions; without rows none. A direction that carries nothing has no segments."""
    if not rows:
        return []
    return [_graph(rows, direction) for direction in (0, 1)]


def _graph(rows: Sequence[Segment], direction: int) -> Graph:
    graph = Graph(direction, {kind: [] for kind in KINDS}, [], [], [], {}, [])
    start, top = rows[0].time, 0
    base: int | None = None
    for row in rows:
        time = (row.time - start) / 1e9
        if row.direction == direction:
            base = row.seq - row.rel_seq
            top = _sent(graph, row, time, top)
        elif row.flags & ACK and not row.flags & RST:
            base = row.ack - row.rel_ack if base is None else base
            _acknowledged(graph, row, time, top, base)
    return graph


def _sent(graph: Graph, row: Segment, time: float, top: int) -> int:
    """A segment of this direction; returns the highest sequence number so far."""
    low = Seq(0).offset(row.rel_seq, top)
    high = low + row.payload
    for bit, name in ((SYN, "SYN"), (FIN, "FIN"), (RST, "RST")):
        if row.flags & bit:
            graph.marks.setdefault(name, []).append((time, high))
    if row.payload:
        graph.segments[_kind(row.bits)].append((time, low, high))
    return top if row.flags & RST else max(top, high)


def _kind(bits: int) -> str:
    if bits & _PROBES:
        return KINDS[3]
    return KINDS[1] if bits & RETRANSMITTED else KINDS[2] if bits & BIT["out_of_order"] else KINDS[0]


def _acknowledged(graph: Graph, row: Segment, time: float, top: int, base: int) -> None:
    """A segment of the other side."""
    acked = Seq(0).offset(row.rel_ack, top)
    graph.acks.append((time, acked))
    if not row.flags & SYN:
        graph.window.append((time, acked + row.window))
        if not row.window:
            graph.marks.setdefault("zero window", []).append((time, acked))
    if row.rtt >= 0:
        graph.rtts.append((time, row.rtt / 1e6))
    for left, right in sack_blocks(row.options[: row.options_length]):
        low = Seq(base).offset(left, top)
        graph.sacks.append((time, low, Seq(base).offset(right, low)))


def sack_blocks(options: bytes) -> Iterator[tuple[int, int]]:
    """The edges of the SACK blocks in TCP options."""
    for kind, value in tcp_options(options):
        if kind == _SACK:
            yield from struct.iter_unpack("!II", value[: len(value) & ~7])


def shown(found: Iterable[Graph]) -> list[Graph]:
    """The directions worth a panel: those that carry a fiftieth of all bytes or more; when nothing is carried, all."""
    found = list(found)
    sizes = [sum(high - low for lines in graph.segments.values() for _, low, high in lines) for graph in found]
    return [graph for graph, size in zip(found, sizes, strict=True) if size * 50 >= max(sum(sizes), 1)] or found
