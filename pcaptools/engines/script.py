"""Scripts: what was said in a recorded connection, as two byte streams with the points at which each side waited.

A side spoke when it had heard enough. How much that was, the acknowledgement number of its segment tells::

    client   GET / ...          | waits for 512 bytes | GET /logo ...       | waits for 7312 bytes | FIN
    server   (after 78 bytes)     512 bytes             (after 160 bytes)     6800 bytes

A `Part` is that for one role: `sends`, each with the number of bytes of the other side that must be there first; the
other side's bytes in between are the `turns`. Turn t is what is said and the answer to it; whoever listens first has an
empty first turn. Segment boundaries, packet numbers and times are kept beside it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import namedtuple
from collections.abc import Iterator

from pcaptools.core.batch import Batch
from pcaptools.core.wire import ACK, FIN, PSH, RST, SYN, TCP, UDP, Segment, Seq, read_segment
from pcaptools.engines.tcp import Offer

Send = namedtuple("Send", "after start end delay packet turn")
"""One recorded segment: bytes [start, end) of ours, said `delay` ns after the first `after` bytes of theirs were there
(or after the send before it, if that was later). packet: its number in the flow, from 1."""

Turn = namedtuple("Turn", "number start end packet asked waited")
"""Bytes [start, end) of theirs that end the wait; packet: the number of the last one that brought them. asked: the
offset in ours at which the question begins; waited: the other side said nothing of this before it had some of that."""

End = namedtuple("End", "kind after after_fin delay packet")
"""How a side ended: "fin", "rst" or "" (the recording stops before); what it had heard by then."""

Endpoint = tuple[bytes, int]

LEAST_WINDOW = 1 << 16


class Part:
    """One side of a script. mine, theirs: the streams; cuts: where segments of theirs ended; end, their_end: `End`."""

    def __init__(self, mine: _Stream, theirs: _Stream, opening: int, offer: Offer) -> None:
        self.mine, self.theirs = bytes(mine.data), bytes(theirs.data)
        self.cuts = theirs.ends
        self.their_packets = [chunk.packet for chunk in theirs.chunks]
        self.offer = offer
        self.opening = opening
        """The number of our first packet: the SYN."""
        self.end, self.their_end = _end(mine, theirs, opening), _end(theirs, mine, opening)
        self.sends = list(_sends(mine, theirs))
        self.turns = _turns(self.sends, theirs)


class Script:
    """A recorded connection or exchange of datagrams.

    number: of the flow, from 1; source: the capture's name. problem: why it cannot be played, or "". packets: of the
    flow in the capture.
    """

    def __init__(self, flow: _Flow) -> None:
        self.number, self.source = flow.number, flow.source
        self.client, self.server = flow.ends
        self.version = 4 if len(self.client[0]) == 4 else 6
        self.protocol = flow.protocol
        self.packets = flow.packets
        self.synthetic = not flow.opened
        self.problem = flow.problem()
        self._flow = flow
        self._parts: dict[str, Part] = {}

    @property
    def shakeless(self) -> bool:
        """Whether the recording lacks the handshake."""
        return self.protocol == TCP and self.synthetic

    def part(self, role: str) -> Part:
        """What `role` ("client" or "server") says and hears."""
        if role not in self._parts:
            mine, theirs = self._flow.sides if role == "client" else self._flow.sides[::-1]
            self._parts[role] = Part(mine, theirs, self._flow.openings[role != "client"], mine.offer())
        return self._parts[role]


_Chunk = namedtuple("_Chunk", "start end after time packet push")


class _Stream:
    """One direction: its bytes by offset, and the chunks in which they were first seen."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.chunks: list[_Chunk] = []
        self.first: Seq | None = None
        self.top = 0
        self.fin: tuple[int, int, int, int] | None = None  # offset, acknowledged, time, packet
        self.rst: tuple[int, int, int] | None = None
        self.snapped = 0
        self.syn: Segment | None = None
        self.ends: list[int] = []
        self._pieces: list[tuple[int, int, bytes]] = []

    def offset(self, seq: int) -> int:
        """The offset of a sequence number; the first one seen is that of offset 0."""
        if self.first is None:
            self.first = Seq(seq)
        return self.first.offset(seq, self.top)

    def add(self, start: int, payload: bytes, chunk: _Chunk) -> None:
        """A segment's bytes; only those count that are new."""
        for low, high in self._new(start, start + len(payload)):
            self.chunks.append(chunk._replace(start=low, end=high, push=chunk.push and high == chunk.end))
            insort(self._pieces, (low, high, payload[low - start : high - start]))
        self.top = max(self.top, start + len(payload))

    def _new(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        start = max(start, 0)
        if start >= self.top or not self._pieces:
            if start < end:
                yield start, end
            return
        first = max(bisect_left(self._pieces, (start,)) - 1, 0)
        for low, high, _ in self._pieces[first:]:
            if high <= start:
                continue
            if low >= end:
                break
            if start < low:
                yield start, low
            start = max(start, high)
        if start < end:
            yield start, end

    def settle(self) -> None:
        """All is in: put the bytes together, and let no byte wait for more than those behind it."""
        self.chunks.sort()
        for _, _, data in self._pieces:
            self.data += data
        self._pieces.clear()
        after, time = 1 << 62, 1 << 62
        for k in range(len(self.chunks) - 1, -1, -1):
            after, time = min(after, self.chunks[k].after), min(time, self.chunks[k].time)
            self.chunks[k] = self.chunks[k]._replace(after=max(after, 0), time=time)
        self.ends = [chunk.end for chunk in self.chunks]

    def gap(self) -> tuple[int, int] | None:
        """The first bytes that are missing, as (from, to)."""
        at = 0
        for chunk in self.chunks:
            if chunk.start > at:
                return at, chunk.start
            at = chunk.end
        end = self.fin[0] if self.fin else at
        return (at, end) if end > at else None

    def time_of(self, offset: int) -> int:
        """When all bytes before an offset had been seen, ns; 0 when that is none."""
        if offset <= 0 or not self.chunks:
            return 0
        return self.chunks[min(bisect_left(self.ends, offset), len(self.ends) - 1)].time

    def offer(self) -> Offer:
        """What its SYN offered."""
        syn = self.syn
        if syn is None:
            return Offer(1460, 7, True, True, 1 << 18)
        window = max(syn.window << (syn.wscale or 0), LEAST_WINDOW if syn.wscale is None else 1 << 18)
        window = min(window, 65535 << (syn.wscale or 0))
        return Offer(syn.mss or 536, syn.wscale, syn.sack_ok, syn.stamps is not None, window)


def _sends(mine: _Stream, theirs: _Stream) -> Iterator[Send]:
    before, turn, heard = 0, 1, 0
    for chunk in mine.chunks:
        after = min(chunk.after, len(theirs.data))
        if after > heard:
            turn, heard = turn + 1, after
        ready = max(before, theirs.time_of(after))
        yield Send(after, chunk.start, chunk.end, max(chunk.time - ready, 0) if ready else 0, chunk.packet, turn)
        before = chunk.time


def _turns(sends: list[Send], theirs: _Stream) -> list[Turn]:
    stops = sorted({send.after for send in sends if send.after} | ({len(theirs.data)} if theirs.data else set()))
    ends = theirs.ends
    questions = {send.after: send.start for send in reversed(sends)}
    turns, start, paused = [], 0, False
    for number, stop in enumerate(stops, 1):
        chunk = theirs.chunks[min(bisect_left(ends, stop), len(ends) - 1)]
        asked = questions.get(start, 0)
        heard = theirs.chunks[bisect_right(ends, start)].after
        turns.append(Turn(number, start, stop, chunk.packet, asked, paused and heard > asked))
        start, paused = stop, chunk.push and chunk.end == stop
    return turns


def _end(mine: _Stream, theirs: _Stream, opening: int) -> End:
    if mine.fin:
        _, after, time, packet = mine.fin
        kind = "fin"
    elif mine.rst:
        after, time, packet = mine.rst
        kind = "rst"
    else:
        return End("", len(theirs.data), False, 0, opening)
    heard = min(max(after, 0), len(theirs.data))
    ready = max(theirs.time_of(heard), mine.chunks[-1].time if mine.chunks else 0)
    after_fin = theirs.fin is not None and after > theirs.fin[0]
    return End(kind, heard, after_fin, max(time - ready, 0) if ready else 0, packet)


class _Flow:
    """What is collected of one flow. sides: client's stream, server's stream."""

    def __init__(self, number: int, source: str, protocol: int, client: Endpoint, server: Endpoint) -> None:
        self.number, self.source, self.protocol = number, source, protocol
        self.ends = (client, server)
        self.sides = (_Stream(), _Stream())
        self.packets = 0
        self.opened = self.closed = False
        self.openings = [1, 1]
        self._settled = False

    def tcp(self, segment: Segment, from_server: bool, size: int, time: int) -> None:
        """A segment; size: bytes of payload that were on the wire."""
        self.packets += 1
        mine, theirs = self.sides[from_server], self.sides[not from_server]
        flags = segment.flags
        if flags & SYN:
            self.openings[from_server] = self.packets
            mine.first, mine.syn = Seq(segment.seq) + 1, segment
            self.opened |= not from_server
            return
        at = mine.offset(segment.seq)
        after = theirs.offset(segment.ack) if flags & ACK else len(theirs.data)
        if size > len(segment.payload):
            mine.snapped = mine.snapped or self.packets
        if size and not flags & RST:
            mine.add(at, segment.payload, _Chunk(at, at + size, after, time, self.packets, bool(flags & PSH)))
        if flags & FIN and not mine.fin:
            mine.fin = (at + size, after, time, self.packets)
        if flags & RST and not mine.rst:
            mine.rst = (after if flags & ACK else theirs.top, time, self.packets)
        self.closed |= bool(flags & RST) or (mine.fin is not None and theirs.fin is not None)

    def udp(self, payload: bytes, from_server: bool, size: int, time: int) -> None:
        """A datagram: what was heard before is what was captured before."""
        self.packets += 1
        self.opened = True
        mine, theirs = self.sides[from_server], self.sides[not from_server]
        if size > len(payload):
            mine.snapped = mine.snapped or self.packets
        if size:
            mine.add(mine.top, payload, _Chunk(mine.top, mine.top + size, theirs.top, time, self.packets, True))

    def problem(self) -> str:
        """Why it cannot be played, or ""."""
        if not self._settled:
            self._settled = True
            for side in self.sides:
                side.settle()
        if not any(side.chunks or side.snapped for side in self.sides) and not self.opened:
            return "no SYN and no payload"
        for name, side in zip(("client", "server"), self.sides, strict=True):
            if side.snapped:
                return f"packet {side.snapped}: payload of the {name} cut by the snap length"
            gap = side.gap()
            if gap:
                return f"the {name}'s bytes {gap[0]} to {gap[1] - 1} are not in the capture"
        return ""


class Collector:
    """Finds the flows in captures. protocol: TCP or UDP. ignored: packets of anything else; damaged: cut headers."""

    def __init__(self, protocol: int = TCP) -> None:
        self.ignored = self.damaged = 0
        self._protocol = protocol
        self._flows: list[_Flow] = []
        self._open: dict[tuple[Endpoint, Endpoint], _Flow] = {}

    def feed(self, batch: Batch, source: str) -> None:
        """Take the packets of a batch."""
        for k in range(batch.n):
            layer = batch.headers(k).inner
            if layer.status == 0 and layer.protocol == self._protocol and not layer.flags & 1:
                self._packet(bytes(batch.packet(k)), layer, batch.time(k), source)
            else:
                self.ignored += 1

    def end_of_capture(self) -> None:
        """Flows do not go on in another capture."""
        self._open.clear()

    def scripts(self) -> list[Script]:
        """All flows, in the order of their first packets."""
        return [Script(flow) for flow in self._flows]

    def _packet(self, data: bytes, layer: tuple, time: int, source: str) -> None:
        ip, at, end = layer[0], layer[1], layer[2]
        width, where = (4, ip + 12) if layer[3] == 4 else (16, ip + 8)
        if at + 8 > len(data):
            self.damaged += 1
            return
        near = (data[where : where + width], data[at] << 8 | data[at + 1])
        far = (data[where + width : where + 2 * width], data[at + 2] << 8 | data[at + 3])
        if self._protocol == UDP:
            flow = self._flow(near, far, 0, 0, source)
            flow.udp(data[at + 8 : end], flow.ends[0] != near, end - at - 8, time)
            return
        body = at + (data[at + 12] >> 4) * 4 if at + 13 <= len(data) else 0
        segment = read_segment(data, at, min(end, len(data)))
        if segment is None:
            self.damaged += 1
            return
        flow = self._flow(near, far, segment.flags, segment.seq, source)
        flow.tcp(segment, flow.ends[0] != near, end - body, time)

    def _flow(self, near: Endpoint, far: Endpoint, flags: int, seq: int, source: str) -> _Flow:
        key = (near, far) if near <= far else (far, near)
        flow = self._open.get(key)
        anew = flags & (SYN | ACK) == SYN and flow and flow.opened and flow.sides[0].first != Seq(seq + 1)
        if flow and not (anew and (flow.closed or flow.sides[0].data or flow.sides[1].data)):
            return flow
        client, server = (far, near) if flags & (SYN | ACK) == SYN | ACK else (near, far)
        if self._protocol == TCP and not flags & SYN and near[1] < far[1]:
            client, server = far, near  # nobody knows: the lower port serves
        flow = self._open[key] = _Flow(len(self._flows) + 1, source, self._protocol, client, server)
        self._flows.append(flow)
        return flow
