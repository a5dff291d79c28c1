"""The two byte streams of one end of a TCP connection: what is to be said, and what has been heard.

Offsets are those of engines/tcp.py: 0 is the SYN, the first byte is 1, the FIN follows the last one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

from pcaptools.core.wire import FIN, PSH

_BLOCKS = 3  # of a selective acknowledgement, beside timestamps


class Outgoing:
    """Bytes to be said, from the first one that is not acknowledged.

    end: the offset behind the last byte; fin: that of the FIN, None when more bytes may follow.
    """

    def __init__(self) -> None:
        self.end = 1
        self.fin: int | None = None
        self._bytes = bytearray()
        self._base = 1
        self._cuts: list[int] = []

    @property
    def all(self) -> int:
        """The offset behind everything that is to be said, the FIN included."""
        return self.end + (self.fin is not None)

    def add(self, data: bytes, cuts: tuple[int, ...]) -> None:
        """Queue bytes; segments should end at these lengths of them, and at their end."""
        self._cuts += [self.end + cut for cut in (*cuts, len(data))]
        self._bytes += data
        self.end += len(data)

    def close(self) -> None:
        """No more bytes follow."""
        if self.fin is None:
            self.fin = self.end

    def segment_end(self, at: int, mss: int) -> int:
        """Where the segment that begins at an offset ends: at the next cut, unless that is too far."""
        stop = min(at + mss, self.end)
        cut = bisect_right(self._cuts, at)
        return min(stop, self._cuts[cut]) if cut < len(self._cuts) else stop

    def piece(self, at: int, stop: int) -> tuple[bytes, bool]:
        """The bytes between two offsets, and whether the last one is pushed: it ends what was said at once."""
        cut = bisect_left(self._cuts, stop)
        pushed = cut < len(self._cuts) and self._cuts[cut] == stop
        return bytes(self._bytes[at - self._base : stop - self._base]), pushed

    def drop(self, ack: int) -> None:
        """What is before an offset has been acknowledged."""
        gone = min(ack, self.end) - self._base
        if gone > 0:
            del self._bytes[:gone]
            self._base += gone
        if len(self._cuts) > 32 or not self._bytes:
            del self._cuts[: bisect_right(self._cuts, ack)]


class Incoming:
    """What is heard, put in order. heard: the offset of the next byte; closed: whether the FIN has been heard."""

    def __init__(self) -> None:
        self.heard = 0
        self.closed = False
        self._arrived: list[tuple[bytes, bool, int]] = []
        self._early: list[tuple[int, bytes, int]] = []
        self._latest = 0

    @property
    def gap(self) -> bool:
        """Whether bytes are missing before others that have come."""
        return bool(self._early)

    def take(self) -> list[tuple[bytes, bool, int]]:
        """See `Connection.take`."""
        arrived, self._arrived = self._arrived, []
        return arrived

    def put(self, at: int, data: bytes, flags: int, acknowledged: int) -> bool:
        """A segment of some length. False when bytes before it are missing: it is kept for later."""
        if at > self.heard:
            entry = (at, data, flags & (FIN | PSH))
            if entry not in self._early:
                insort(self._early, entry)
            self._latest = at
            return False
        self._deliver(data[self.heard - at :], flags, acknowledged)
        while self._early and self._early[0][0] <= self.heard and not self.closed:
            start, data, flags = self._early.pop(0)
            if start + len(data) + (flags & FIN) > self.heard:
                self._deliver(data[self.heard - start :], flags, acknowledged)
        return True

    def _deliver(self, data: bytes, flags: int, acknowledged: int) -> None:
        if data:
            self._arrived.append((data, bool(flags & PSH), acknowledged))
            self.heard += len(data)
        if flags & FIN:
            self.heard += 1
            self.closed = True

    def blocks(self) -> list[tuple[int, int]]:
        """Ranges that arrived early, joined where they touch: the one of the latest segment first (RFC 2018, 4)."""
        blocks: list[tuple[int, int]] = []
        for start, data, _ in self._early:
            end = start + len(data)
            if blocks and start <= blocks[-1][1]:
                blocks[-1] = blocks[-1][0], max(blocks[-1][1], end)
            elif data:
                blocks.append((start, end))
        blocks.sort(key=lambda block: not block[0] <= self._latest < block[1])
        return blocks[:_BLOCKS]
