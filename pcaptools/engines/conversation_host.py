"""One host of a made conversation: what it sends and acknowledges, what has come (RFC 9293, 5681, 6298, 6582).

It knows neither the wire nor the clock: segments go out through `send`, and `later` wakes it. Positions count from its
SYN, which is 0: its first byte is 1, its FIN stands behind the last one.
"""

from __future__ import annotations

import struct
from collections import namedtuple
from collections.abc import Callable, Sequence

FIN, SYN, PSH, ACK = 1, 2, 8, 16

MS = 1_000_000
DELAYED_ACK = 40 * MS
FIRST_TIMEOUT = 1000 * MS
LEAST_TIMEOUT = 200 * MS
LONGEST_TIMEOUT = 60_000 * MS
INITIAL_SEGMENTS = 10
"""RFC 6928."""

OPTIONS = ("mss", "sack", "wscale", "timestamps")

Turn = namedtuple("Turn", "side data")
"""Bytes that the client (0) or the server (1) says."""

Segment = namedtuple("Segment", "side seq ack flags window options payload")
"""A TCP segment as it is sent; seq and ack as they stand in it, window scaled."""

Carried = namedtuple("Carried", "position flags ack sacked data timestamp")
"""A segment as the other end takes it: positions instead of sequence numbers."""


class Settings(
    namedtuple(
        "Settings", "mss rtt loss reorder window options seed", defaults=(1460, 20 * MS, 0, 0, 65535, OPTIONS[:3], 1)
    )
):
    """How both hosts and the wire are: mss in bytes, rtt in ns, loss and reorder as shares of 1, window in bytes, names
    of TCP options."""

    @property
    def shift(self) -> int:
        """Window scale (RFC 7323)."""
        return max(0, self.window.bit_length() - 16) if "wscale" in self.options else 0

    @property
    def payload(self) -> int:
        """Bytes of the largest segment: options count (RFC 6691)."""
        return self.mss - (12 if "timestamps" in self.options else 0)


class Host:
    """One end of a connection. `send` is called with each segment that it sends, `later` to be woken after ns."""

    def __init__(
        self, side: int, turns: Sequence[Turn], settings: Settings, isn: int,
        send: Callable[[Host, Segment, Carried], None], later: Callable[[int, Callable[[], None]], None],
        clock: Callable[[], int],
    ) -> None:  # fmt: skip
        self.side = side
        self.isn = isn
        self.peer_isn: int | None = None
        self._settings = settings
        self._send, self._later, self._clock = send, later, clock
        # The application.
        self._turns = turns
        self._turn = 0
        self._expected = 0
        # Sending: positions una <= nxt <= end of what is written.
        self._written = bytearray()
        self._pushes: set[int] = set()
        self._closed = False
        self._una = self._nxt = 0
        self._top = self._guard = 0
        self._segment = settings.payload
        self._congestion = INITIAL_SEGMENTS * self._segment
        self._threshold = 1 << 40
        self._peer_window = 0
        self._duplicates = 0
        self._recover: int | None = None
        self._timeout = FIRST_TIMEOUT
        self._timer = 0
        # Receiving.
        self._received = bytearray()
        self._expect = 0
        self._early: dict[int, tuple[bytes, bool]] = {}
        self._peer_closed = False
        self._unacknowledged = 0
        self._delayed = 0
        self._echo = 0

    # What the application does

    def _run_application(self) -> None:
        while self._turn < len(self._turns):
            turn = self._turns[self._turn]
            if turn.side == self.side:
                self._written += turn.data
                self._pushes.add(1 + len(self._written))
            elif len(self._received) >= self._expected + len(turn.data):
                self._expected += len(turn.data)
            else:
                return
            self._turn += 1
        self._closed = self.side == 0 or self._peer_closed

    @property
    def _end(self) -> int:
        """Position behind all that can be sent."""
        return 1 + len(self._written) + self._closed

    # Sending

    def open(self) -> None:
        """The client's SYN."""
        self._transmit(0)

    def _flush(self) -> None:
        """Send what windows allow."""
        if self.peer_isn is None or self._una < 1:
            return
        limit = self._una + min(self._peer_window, self._congestion)
        while self._nxt < self._end:
            data_left = 1 + len(self._written) - self._nxt
            if self._nxt + max(1, min(data_left, self._segment)) > limit and self._nxt > self._una:
                return
            self._transmit(self._nxt, room=max(1, limit - self._nxt))

    def _transmit(self, position: int, room: int = 1 << 30) -> None:
        """Send the segment that begins at a position, the first time or again."""
        behind = 1 + len(self._written)
        if position == 0:
            data, flags = b"", SYN
        else:
            data = bytes(self._written[position - 1 : position - 1 + min(self._segment, room)])
            stop = position + len(data)
            flags = PSH if data and stop in self._pushes else 0
            if self._closed and stop == behind and len(data) < room:
                flags |= FIN
        length = len(data) + bool(flags & (SYN | FIN))
        self._nxt = max(self._nxt, position + length)
        self._top = max(self._top, self._nxt)
        self._emit(position, flags, data)
        self._arm()

    def _emit(self, position: int, flags: int, data: bytes = b"") -> None:
        """Hand a segment to the wire, with what it acknowledges."""
        settings = self._settings
        ack = 0
        if self.peer_isn is not None:
            flags |= ACK
            ack = self.peer_isn + self._expect
            self._unacknowledged = 0
            self._delayed += 1
        window = settings.window if flags & SYN else settings.window >> settings.shift
        now = self._clock() // MS
        segment = Segment(
            self.side, self.isn + position, ack, flags, min(window, 65535), self._options(flags, data, now), data
        )  # fmt: skip
        self._send(self, segment, Carried(position, flags, self._expect if flags & ACK else None, (), data, now))

    def _options(self, flags: int, data: bytes, now: int) -> bytes:
        """TCP options: RFC 9293 (maximum segment size), RFC 2018 (selective acknowledgements), RFC 7323."""
        wanted, options = self._settings.options, b""
        if flags & SYN:
            if "mss" in wanted:
                options += struct.pack("!BBH", 2, 4, self._settings.mss)
            if "sack" in wanted:
                options += bytes((4, 2)) if "timestamps" in wanted else bytes((1, 1, 4, 2))
        elif "timestamps" in wanted:
            options += b"\1\1"
        if "timestamps" in wanted:
            options += struct.pack("!BBII", 8, 10, self._stamp(now), self._echo if flags & ACK else 0)
        if flags & SYN and "wscale" in wanted:
            options += bytes((1, 3, 3, self._settings.shift))
        if not data and not flags & (SYN | FIN) and "sack" in wanted:
            options += self._selective()
        return options

    def _stamp(self, ms: int) -> int:
        return self.isn % 1_000_000 + ms & 0xFFFFFFFF

    def _selective(self) -> bytes:
        """The blocks that came too early (RFC 2018), three at most."""
        blocks: list[list[int]] = []
        for start in sorted(self._early):
            stop = start + len(self._early[start][0]) + self._early[start][1]
            if blocks and start <= blocks[-1][1]:
                blocks[-1][1] = max(stop, blocks[-1][1])
            else:
                blocks.append([start, stop])
        if not blocks:
            return b""
        assert self.peer_isn is not None
        edges = [(self.peer_isn + edge) & 0xFFFFFFFF for block in blocks[:3] for edge in block]
        return struct.pack(f"!BBBB{len(edges)}I", 1, 1, 5, 2 + 4 * len(edges), *edges)

    # Timers

    def _arm(self) -> None:
        """Start the timer for the oldest byte that is not acknowledged; an earlier timer no longer counts."""
        self._timer += 1
        if self._una < self._nxt:
            mine = self._timer
            self._later(self._timeout, lambda: self._expired(mine))

    def _expired(self, timer: int) -> None:
        if timer != self._timer or self._una >= self._nxt:
            return
        self._threshold = max((self._nxt - self._una) // 2, 2 * self._segment)
        self._congestion = self._segment
        self._timeout = min(2 * self._timeout, LONGEST_TIMEOUT)
        self._recover = None
        self._guard = self._top
        self._nxt = self._una
        self._transmit(self._una)

    def _acknowledge_later(self) -> None:
        self._delayed += 1
        mine = self._delayed
        self._later(DELAYED_ACK, lambda: self._acknowledge() if mine == self._delayed else None)

    def _acknowledge(self) -> None:
        self._emit(self._nxt, 0)

    # Receiving

    def receive(self, peer: Host, carried: Carried) -> None:
        """Take a segment of the other end."""
        fresh = self.peer_isn is None
        if fresh:
            self.peer_isn = peer.isn
            self._expect = 1
        if carried.ack is not None:
            self._take_acknowledgement(carried)
        self._take_window(carried)
        urgent = self._take_data(carried, peer)
        if fresh and self.side == 1:
            self._transmit(0)
            return
        if fresh:
            self._acknowledge()
            urgent = None
        self._run_application()
        before = self._delayed
        self._flush()
        if before == self._delayed and urgent is not None:
            if urgent or self._unacknowledged >= 2:
                self._acknowledge()
            else:
                self._acknowledge_later()

    def _take_window(self, carried: Carried) -> None:
        window, shift = self._settings.window, self._settings.shift
        self._peer_window = min(window, 65535) if carried.flags & SYN else window >> shift << shift

    def _take_data(self, carried: Carried, peer: Host) -> bool | None:
        """Keep what came. Returns whether to acknowledge at once; None: there is nothing to acknowledge."""
        if carried.flags & SYN:
            self._echo = peer._stamp(carried.timestamp)
            return True if self.side == 0 or self._una else None
        length = len(carried.data) + bool(carried.flags & FIN)
        if not length:
            return None
        if carried.position != self._expect:
            if carried.position > self._expect:
                self._early[carried.position] = (carried.data, bool(carried.flags & FIN))
            elif carried.position + length > self._expect:
                return self._take_overlap(carried, peer)
            return True
        gap = bool(self._early)
        self._echo = peer._stamp(carried.timestamp)
        self._accept(carried.data, bool(carried.flags & FIN))
        while self._early:
            start = min(self._early)
            if start > self._expect:
                break
            data, fin = self._early.pop(start)
            if start + len(data) + fin > self._expect:
                self._accept(data[self._expect - start :], fin)
        self._unacknowledged += 1
        return gap or self._peer_closed

    def _take_overlap(self, carried: Carried, peer: Host) -> bool | None:
        skip = self._expect - carried.position
        return self._take_data(carried._replace(position=self._expect, data=carried.data[skip:]), peer)

    def _accept(self, data: bytes, fin: bool) -> None:
        self._received += data
        self._expect += len(data) + fin
        self._peer_closed |= fin

    def _take_acknowledgement(self, carried: Carried) -> None:
        ack = carried.ack
        if ack > self._una:
            self._advance(ack)
        elif ack == self._una < self._nxt and not carried.data and not carried.flags & (SYN | FIN):
            self._count_duplicate()

    def _advance(self, ack: int) -> None:
        acked, self._una = ack - self._una, ack
        self._nxt = max(self._nxt, ack)
        self._duplicates = 0
        self._timeout = max(LEAST_TIMEOUT, 3 * self._settings.rtt)
        if self._recover is not None:
            if ack < self._recover:
                self._transmit(ack)
                return
            self._recover = None
            self._congestion = self._threshold
        elif self._congestion < self._threshold:
            self._congestion += min(acked, self._segment)
        else:
            self._congestion += max(1, self._segment * self._segment // self._congestion)
        self._arm()

    def _count_duplicate(self) -> None:
        if self._una < self._guard:
            return
        self._duplicates += 1
        if self._duplicates == 3 and self._recover is None:
            self._threshold = max((self._nxt - self._una) // 2, 2 * self._segment)
            self._recover = self._nxt
            self._congestion = self._threshold + 3 * self._segment
            self._transmit(self._una)
        elif self._recover is not None:
            self._congestion += self._segment
