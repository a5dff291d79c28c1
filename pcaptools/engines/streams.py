"""Byte streams out of TCP segments, as they come, for what reads them in order.

::

    segments   [0,5)  [10,15)        [5,10)                  [20,25)   the other side acknowledges 25, nothing more came
    pieces     [0,5)                 [5,10) [10,15)                    gap [15,20) [20,25)

A `Stream` is one direction; what it hands on are `Piece`s: bytes, or a gap where the capture lacks them. Bytes are
never made up. A hole is waited for as long as it may yet be filled, and given up as a gap when

* the other side acknowledged past it (it has these bytes: nobody sends them again), and `GRACE` has passed in which a
  capture out of several queues puts them right;
* `PATIENCE` has passed by the capture's clock; nothing here looks at another one;
* what is held behind holes exceeds the `Budget`, which all streams share;
* the stream ends.

The rest of a segment that the snap length cut is a gap at once. In order and complete is the common case: it costs no
copy, the piece is a view of the packet that lives as long as its batch. Only what waits behind a hole is copied.

Where two segments claim the same bytes, the policy decides: `first`, what came first counts, or `last`. Hosts differ in
this (RFC 9293, 3.10.7.4 leaves it open), intruders know. What was handed on cannot be called back: under `last` a piece
may go back and say other bytes for what was said before, and under either policy bytes that come after their hole was
given up do. Such pieces begin before `Stream.position`; who cannot use them leaves them out.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence

from pcaptools.core.wire import ACK, FIN, RST, SYN

Piece = namedtuple("Piece", "start size data time packet")
"""Bytes [start, start + size) of a stream, counted from behind the SYN, or from the first byte seen. data: a view of
them, None: they are not in the capture. time (ns), packet: of the segment that brought them, or that a gap precedes."""

POLICIES = ("first", "last")

MS = 1_000_000
GRACE = 20 * MS
PATIENCE = 60_000 * MS

BUDGET = 64 << 20
"""Bytes that all streams together hold behind holes."""

HELD = 250
"""Bytes of memory that a held piece takes besides its data."""

MOST_GAPS = 1024
"""Gaps of a stream that are remembered, so that late bytes can still fill them."""

_MASK, _HALF = 0xFFFFFFFF, 1 << 31
_WINDOW = 1 << 30
"""No window is larger (RFC 7323, 2.3): a segment further ahead is not of this stream, unless it was acknowledged."""

_NOTHING: tuple[Piece, ...] = ()


class Budget:
    """What many share: here, bytes that streams hold. most: used at any time. exceeded: how often it was not enough."""

    __slots__ = ("exceeded", "limit", "most", "used")

    def __init__(self, limit: int = BUDGET) -> None:
        self.limit = limit
        self.used = self.most = self.exceeded = 0


class Stream:
    """One direction of a TCP connection. Call `begin` for a SYN, `add` for what carries bytes, `end` for a FIN,
    `acknowledged` for the other side's acknowledgements, `finish` when no more comes."""

    __slots__ = (
        "_acked", "_acked_at", "_budget", "_cost", "_end", "_expected", "_gaps", "_held", "_last", "_since", "_sure",
        "_told", "early", "missing", "position", "repeated", "wild",
    )  # fmt: skip

    def __init__(self, policy: str = "first", budget: Budget | None = None) -> None:
        """policy: one of `POLICIES`."""
        self._last = policy == "last"
        self._budget = budget or Budget()
        self._expected: int | None = None
        self._held: list[Piece] = []
        self._cost = 0
        self._since = 0
        self._acked = self._acked_at = 0
        self._end: int | None = None
        self._sure = True
        self._gaps: list[tuple[int, int]] = []
        self._told = (0, 0)
        self.position = 0
        """Bytes handed on, gaps included."""
        self.missing = 0
        """Bytes of gaps."""
        self.repeated = 0
        """Bytes that came again, or that other bytes had been taken for."""
        self.early = 0
        """Bytes from before the first byte that was seen: a capture that begins amid a connection."""
        self.wild = 0
        """Segments that cannot be of this stream."""

    @property
    def waiting(self) -> bool:
        """Whether bytes are held behind a hole."""
        return bool(self._held)

    @property
    def ended(self) -> bool:
        """Whether all up to the FIN was handed on."""
        return self._end is not None and self.position >= self._end

    def begin(self, seq: int, *, sure: bool = True) -> None:
        """A SYN with this sequence number. The stream begins behind it, unless it has begun. sure: False, when that is
        a guess, from the first segment seen: that may have been a keep-alive, which is one byte behind."""
        if not self.position and not self._held:
            self._expected = (seq + 1) & _MASK
            self._sure = sure

    def end(self, seq: int, time: int, packet: int = 0) -> None:
        """A FIN; seq: that of the byte behind the last. Bytes behind it are handed on all the same."""
        if self._expected is None:
            self._expected = seq & _MASK
        offset = self._offset(seq)
        if self._end is None and 0 <= offset <= max(self.position + _WINDOW, self._acked):
            self._end, self._told = offset, (time, packet)

    def add(
        self, seq: int, data: memoryview | bytes, size: int, time: int, packet: int = 0
    ) -> Sequence[Piece]:  # fmt: skip
        """What a segment's bytes make known. seq: of the first; size: bytes on the wire, of which `data` was captured;
        time: ns; packet: its number."""
        expected = self._expected
        if seq == expected and not self._held and len(data) == size > 0:
            piece = Piece(self.position, size, data, time, packet)
            self._expected = (seq + size) & _MASK
            self.position += size
            return (piece,)
        if expected is None:
            self._expected = seq
            return self.add(seq, data, size, time, packet)
        return self._add(self._offset(seq), data, size, time, packet) if size > 0 else _NOTHING

    def acknowledged(self, ack: int, time: int, packet: int = 0) -> Sequence[Piece]:
        """What the other side's acknowledgement number makes known."""
        if self._expected is None or ack == self._expected:
            return _NOTHING
        offset = self._offset(ack)
        if offset > self._acked:
            if self._acked <= self.position:
                self._acked_at = time
            self._acked = offset
            if self._end is None:
                self._told = (time, packet)
        return self.flush(time) if self._held else _NOTHING

    def flush(self, time: int) -> Sequence[Piece]:
        """What is handed on because time (ns) has passed."""
        pieces: list[Piece] = []
        while self._held and self._given_up(time):
            self._skip(pieces, time)
        return pieces

    def finish(self) -> Sequence[Piece]:
        """All that is left: what is held, and a gap up to the FIN, or to what the other side acknowledged."""
        pieces: list[Piece] = []
        while self._held:
            self._skip(pieces, 0)
        end = self._acked if self._end is None else self._end
        if self._end is None and end == self.position + 1:
            end = self.position  # one more than there are bytes: an unseen FIN, most likely
        if end > self.position:
            pieces.append(self._gap(end, *self._told))
        return pieces

    def _offset(self, seq: int) -> int:
        """The offset in the stream of a sequence number, the one nearest to `position`."""
        assert self._expected is not None
        return self.position + ((seq - self._expected + _HALF) & _MASK) - _HALF

    def _given_up(self, time: int) -> bool:
        """Whether the hole in front of what is held will not be filled."""
        if self._acked > self.position and time - self._acked_at >= GRACE:
            return True
        return time - self._since >= PATIENCE

    def _add(self, start: int, data: memoryview | bytes, size: int, time: int, packet: int) -> Sequence[Piece]:
        if start - self.position > _WINDOW and start > self._acked:
            self.wild += 1
            return _NOTHING
        if start == 1 and not self._sure and not self.position and not self._held:
            self._expected = (self._expected or 0) + 1 & _MASK
            start = 0
        pieces: list[Piece] = []
        if start < self.position:
            if size == 1 and start == self.position - 1:
                return _NOTHING  # a keep-alive: its byte means nothing (RFC 9293, 3.8.4)
            pieces += self._again(start, data, min(size, self.position - start), time, packet)
            data, size, start = data[self.position - start :], start + size - self.position, self.position
            if size <= 0:
                return pieces
        if start == self.position and not self._held:
            self._pass(pieces, Piece(start, size, data, time, packet))
            return pieces
        self._hold(start, data, size, time, packet)
        self._drain(pieces, time)
        pieces += self.flush(time)
        if self._budget.used > self._budget.limit:
            self._budget.exceeded += 1
            while self._held:
                self._skip(pieces, time)
        return pieces

    def _again(self, start: int, data: memoryview | bytes, size: int, time: int, packet: int) -> Iterator[Piece]:
        """Bytes for what was handed on: those that other bytes, or nothing, stood for."""
        low = max(start, 0)
        self.early += low - start
        self.repeated += start + size - low
        end = min(start + len(data), start + size)
        if low >= end:
            return
        if self._last:
            yield Piece(low, end - low, data[low - start : end - start], time, packet)
            self._fill(low, end)
            return
        for gap_start, gap_end in [gap for gap in self._gaps if gap[0] < end and gap[1] > low]:
            a, b = max(gap_start, low), min(gap_end, end)
            yield Piece(a, b - a, data[a - start : b - start], time, packet)
            self.repeated -= b - a
            self._fill(a, b)

    def _fill(self, start: int, end: int) -> None:
        """Bytes of a gap came late."""
        for gap in [gap for gap in self._gaps if gap[0] < end and gap[1] > start]:
            self._gaps.remove(gap)
            self.missing -= min(gap[1], end) - max(gap[0], start)
            for rest in ((gap[0], start), (end, gap[1])):
                if rest[0] < rest[1]:
                    insort(self._gaps, rest)

    def _pass(self, pieces: list[Piece], piece: Piece) -> None:
        """Hand on what comes next; what of it was not captured is a gap."""
        start, size, data, time, packet = piece
        got = 0 if data is None else len(data)
        if got:
            self._go_to(start + got)
            pieces.append(piece if got == size else piece._replace(size=got))
        if size > got:
            pieces.append(self._gap(start + size, time, packet))

    def _go_to(self, position: int) -> None:
        assert self._expected is not None
        self._expected = (self._expected + position - self.position) & _MASK
        self.position = position

    def _gap(self, end: int, time: int, packet: int) -> Piece:
        """Give up what lacks before `end`."""
        start = self.position
        self._go_to(end)
        self.missing += end - start
        if len(self._gaps) < MOST_GAPS:
            self._gaps.append((start, end))
        return Piece(start, end - start, None, time, packet)

    def _hold(self, start: int, data: memoryview | bytes, size: int, time: int, packet: int) -> None:
        """Keep what cannot be handed on yet: a copy, since views do not live."""
        if not self._held:
            self._since = time
        got = len(data)
        if got:
            self._insert(Piece(start, got, bytes(data), time, packet))
        if size > got:
            self._insert(Piece(start + got, size - got, None, time, packet))

    def _insert(self, new: Piece) -> None:
        held = self._held
        low = bisect_left(held, (new.start,))
        if low and held[low - 1].start + held[low - 1].size > new.start:
            low -= 1
        high, end = low, new.start + new.size
        while high < len(held) and held[high].start < end:
            high += 1
        old = held[low:high]
        held[low:high] = kept = _settled(old, new, self._last) if old else [new]
        self._charge(kept, old)
        self.repeated += new.size + sum(piece.size for piece in old) - sum(piece.size for piece in kept)

    def _charge(self, more: Sequence[Piece], less: Sequence[Piece]) -> None:
        cost = sum(HELD + len(piece.data or b"") for piece in more) - sum(HELD + len(p.data or b"") for p in less)
        self._cost += cost
        budget = self._budget
        budget.used += cost
        budget.most = max(budget.most, budget.used)

    def _drain(self, pieces: list[Piece], time: int) -> None:
        """Hand on what is held and comes next."""
        count = 0
        for piece in self._held:
            if piece.start != self.position:
                break
            self._pass(pieces, piece)
            count += 1
        if count:
            self._charge((), self._held[:count])
            del self._held[:count]
            self._since = time

    def _skip(self, pieces: list[Piece], time: int) -> None:
        """Give up the first hole."""
        behind = self._held[0]
        if behind.start > self.position:
            pieces.append(self._gap(behind.start, behind.time, behind.packet))
        self._drain(pieces, time)


def _settled(old: Sequence[Piece], new: Piece, last: bool) -> list[Piece]:
    """Pieces that overlap, cut so that they do not. Bytes count more than none, then the policy."""
    ranked = [new, *old] if last else [*old, new]
    ranked.sort(key=lambda piece: piece.data is None)
    kept: list[Piece] = []
    for piece in ranked:
        kept += [*_outside(piece, kept)]
        kept.sort()
    return kept


def _outside(piece: Piece, others: Sequence[Piece]) -> Iterator[Piece]:
    """What of a piece the others (sorted) do not cover."""
    start, end = piece.start, piece.start + piece.size
    for other in others:
        if start < min(other.start, end):
            yield _part(piece, start, min(other.start, end))
        start = max(start, other.start + other.size)
    if start < end:
        yield _part(piece, start, end)


def _part(piece: Piece, start: int, end: int) -> Piece:
    data = None if piece.data is None else piece.data[start - piece.start : end - piece.start]
    return piece._replace(start=start, size=end - start, data=data)


class Duplex:
    """Both directions of a connection. Hands every piece to `take(way, piece)`; way 0: from the client."""

    __slots__ = ("_take", "streams")

    def __init__(
        self, take: Callable[[int, Piece], object], policy: str = "first", budget: Budget | None = None
    ) -> None:
        self._take = take
        budget = budget or Budget()
        self.streams = (Stream(policy, budget), Stream(policy, budget))

    def begin(self, way: int, seq: int, sure: bool) -> None:
        """The sequence number of a SYN that was seen elsewhere: see `Stream.begin`."""
        self.streams[way].begin(seq, sure=sure)

    def acknowledge(self, way: int, ack: int, time: int, packet: int) -> None:
        """Take a segment that does nothing but acknowledge."""
        for piece in self.streams[1 - way].acknowledged(ack, time, packet):
            self._take(1 - way, piece)

    def segment(
        self, way: int, seq: int, ack: int, flags: int, data: memoryview | bytes, size: int, time: int, packet: int
    ) -> None:
        """Take a segment: its numbers and flags as on the wire; data, size, time, packet as `Stream.add` has them."""
        mine = self.streams[way]
        if flags & SYN:
            mine.begin(seq)
            seq += 1
            if flags & ACK:
                self.streams[1 - way].begin(ack - 1)
        elif flags & ACK and not flags & RST:
            self.acknowledge(way, ack, time, packet)
        if flags & RST:
            return
        if size:
            for piece in mine.add(seq & _MASK, data, size, time, packet):
                self._take(way, piece)
        if flags & FIN:
            mine.end(seq + size, time, packet)

    def finish(self) -> None:
        """No more comes: hand on all that is left."""
        for way in (0, 1):
            for piece in self.streams[way].finish():
                self._take(way, piece)
