"""One end of a TCP connection, without a socket or a clock: RFC 9293, with RFC 6298 (retransmission timer), 5681 and
6675 (loss recovery, simplified), 7323 (window scale, timestamps), 2018 (SACK) and 5961 (challenge ACKs).

Both streams are counted from 0 without wrapping: 0 is the SYN, the first byte is 1, the FIN follows the last one.
Sequence numbers exist at the edge only, where `Seq.offset` makes such a count of them::

    acknowledged      sent            queued                 received            arrived early
    0 ......... una ........ nxt .......... end         0 ......... heard   [early] [early]
                      (top: the highest nxt so far)

What happens to a state at an event is one table, TRANSITIONS; an event that is not in a state's row changes nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import namedtuple

from pcaptools.core.wire import ACK, FIN, PSH, RST, SYN, Segment, Seq

CLOSED, LISTEN, SYN_SENT, SYN_RECEIVED, ESTABLISHED = "closed", "listen", "syn sent", "syn received", "established"
FIN_WAIT_1, FIN_WAIT_2, CLOSING, TIME_WAIT = "fin wait 1", "fin wait 2", "closing", "time wait"
CLOSE_WAIT, LAST_ACK = "close wait", "last ack"

# RFC 9293 figure 5. Events: what is done here (open, listen, close), and what arrives (syn, syn ack, ack: of our SYN,
# fin, fin ack: of our FIN). A reset and a given-up retransmission close in every state.
TRANSITIONS = {
    (CLOSED, "open"): SYN_SENT,
    (CLOSED, "listen"): LISTEN,
    (LISTEN, "syn"): SYN_RECEIVED,
    (SYN_SENT, "syn"): SYN_RECEIVED,  # both opened at once
    (SYN_SENT, "syn ack"): ESTABLISHED,
    (SYN_RECEIVED, "ack"): ESTABLISHED,
    (SYN_RECEIVED, "fin"): CLOSE_WAIT,
    (ESTABLISHED, "close"): FIN_WAIT_1,
    (ESTABLISHED, "fin"): CLOSE_WAIT,
    (FIN_WAIT_1, "fin ack"): FIN_WAIT_2,
    (FIN_WAIT_1, "fin"): CLOSING,  # both closed at once
    (FIN_WAIT_2, "fin"): TIME_WAIT,
    (CLOSING, "fin ack"): TIME_WAIT,
    (CLOSE_WAIT, "close"): LAST_ACK,
    (LAST_ACK, "fin ack"): CLOSED,
}

MS = 1_000_000  # ns
FIRST_RTO, LEAST_RTO, MOST_RTO = 1000 * MS, 200 * MS, 60_000 * MS
DUPLICATES = 3  # acknowledgements of the same byte that mean a loss
FIRST_WINDOW = 10  # segments (RFC 6928)
CHALLENGES = 10  # a second
DEFAULT_MSS = 536

Offer = namedtuple("Offer", "mss wscale sack timestamps window")
"""What a SYN offers: largest segment in bytes, window scale or None, SACK, timestamps, and the window in bytes."""

PLAIN = Offer(1460, 7, True, True, 1 << 18)


class Connection:
    """One end of a connection.

    `open` or `listen`, then feed it what arrives (`receive`) and the time (`timeout`); take what it says
    (`segments_to_send`) and what it was told (`take`). `send`, `close` and `abort` are the other side of it. Times are
    ns of any clock that does not go back.
    """

    def __init__(self, isn: int, offer: Offer = PLAIN, *, retries: int = 8, first_stamp: int = 0) -> None:
        """retries: how often a segment is sent again before the connection is given up."""
        self.state = CLOSED
        self.failure = ""
        """Why it is closed against our will: "refused", "reset", "no answer"; else empty."""
        self.tries = 0
        self.retransmitted = 0
        self.rtt = 0
        """The first round trip measured, ns."""
        self.sent_bytes = 0
        self.peer_closed = False
        self.iss = Seq(isn)
        self.una = self.nxt = self.top = 0
        self.heard = 0
        self._irs = Seq(0)
        self._offer = offer
        self._retries = retries
        self.stamp = first_stamp
        self._stamps = offer.timestamps
        self._recent = 0
        self._sack = offer.sack
        self._scale_out = offer.wscale
        self._scale_in = 0
        self._mss = DEFAULT_MSS
        self._limit = 0  # of the peer's window, as an offset
        self._window_seq = self._window_ack = 0
        self._peer_window = 0
        self._buffer = bytearray()
        self._base = 1
        self._cuts: list[int] = []
        self._fin: int | None = None
        self._arrived: list[tuple[bytes, bool]] = []
        self._early: list[tuple[int, bytes, int]] = []
        self._out: list[Segment] = []
        self._ack_due = False
        self._duplicates = 0
        self._recover = -1
        self._hole = 0
        self._sacked: list[tuple[int, int]] = []
        self._cwnd = self._ssthresh = 1 << 30
        self._rto, self._srtt, self._variance = FIRST_RTO, 0, 0
        self._timer: int | None = None
        self._timed: tuple[int, int] | None = None
        self._challenged = (0, 0)

    # --- what we do

    def open(self) -> None:
        """Connect: the SYN goes out."""
        self._move("open")

    def listen(self) -> None:
        """Wait for a SYN."""
        self._move("listen")

    def send(self, data: bytes, cuts: tuple[int, ...] = ()) -> None:
        """Queue bytes. cuts: lengths from the start of `data` at which a segment should end, besides its end."""
        self._cuts += [self.end + cut for cut in (*cuts, len(data))]
        self._buffer += data

    def close(self) -> None:
        """No more bytes follow: a FIN goes behind the last one."""
        if self._fin is None:
            self._fin = self.end

    def abort(self) -> None:
        """Reset the connection."""
        if self.state not in (CLOSED, LISTEN, SYN_SENT, TIME_WAIT):
            self._out.append(self._segment(self.nxt, RST | ACK))
        self.state, self._timer = CLOSED, None

    @property
    def end(self) -> int:
        """The offset behind the last byte queued."""
        return self._base + len(self._buffer)

    @property
    def all_acknowledged(self) -> bool:
        """Whether every byte, and the FIN where there is one, has been acknowledged."""
        return self.una >= self.end + (self._fin is not None)

    @property
    def mss(self) -> int:
        """The largest segment that goes out, bytes without headers."""
        return self._mss

    def shrink(self, mss: int) -> None:
        """The path carries no larger segments (ICMP: fragmentation needed, packet too big): send again from una."""
        if 64 <= mss < self._mss:
            self._mss = mss
            self.nxt = max(self.una, 1)

    def take(self) -> list[tuple[bytes, bool]]:
        """What has arrived in order since the last call: (bytes, whether pushed), one per segment."""
        arrived, self._arrived = self._arrived, []
        return arrived

    def _move(self, event: str) -> bool:
        state = TRANSITIONS.get((self.state, event))
        if state is None:
            return False
        self.state = state
        return True

    # --- what arrives

    def receive(self, segment: Segment, now: int) -> None:
        """Take in a segment of the peer's."""
        if self.state in (CLOSED, LISTEN, SYN_SENT):
            self._greet(segment, now)
            return
        at = self._irs.offset(segment.seq, self.heard)
        if not self._acceptable(segment, at, now):
            return
        if segment.flags & RST:
            self._reset(segment, at, now)
        elif segment.flags & SYN and at != 0:
            self._challenge(now)
        elif segment.flags & SYN and not segment.flags & ACK:
            self._out.append(self._segment(0, SYN | ACK, again=True))
        elif segment.flags & ACK and self._acknowledge(segment, at, now):
            self._take_in(segment, at)

    def _greet(self, segment: Segment, now: int) -> None:
        """A segment before there is a connection, or after it."""
        flags = segment.flags
        if self.state == CLOSED and not flags & RST:
            self._refuse(segment)
            return
        if self.state == SYN_SENT and flags & ACK and self.iss.offset(segment.ack, 1) != 1:
            if not flags & RST:  # an answer to a SYN that is not ours: half open (RFC 9293, 3.5.1)
                self._refuse(segment)
            return
        if flags & RST:
            if self.state == SYN_SENT and flags & ACK:
                self._fail("refused")
        elif flags & SYN and self.state != CLOSED and (self.state == SYN_SENT or not flags & ACK):
            self._meet(segment, now)

    def _refuse(self, segment: Segment) -> None:
        """RFC 9293 3.10.7.1."""
        if segment.flags & ACK:
            self._out.append(Segment(segment.ack, 0, RST, 0))
        else:
            self._out.append(Segment(0, (segment.seq + segment.length) & 0xFFFFFFFF, RST | ACK, 0))

    def _meet(self, segment: Segment, now: int) -> None:
        """The peer's SYN."""
        self._irs, self.heard = Seq(segment.seq), 1
        offer = self._offer
        self._stamps = offer.timestamps and segment.stamps is not None
        self._recent = segment.stamps[0] if segment.stamps else 0
        self._sack = offer.sack and segment.sack_ok
        scaled = offer.wscale is not None and segment.wscale is not None
        self._scale_out = offer.wscale if scaled else None
        self._scale_in = segment.wscale or 0 if scaled else 0
        self._mss = max(64, min(offer.mss, segment.mss or DEFAULT_MSS) - 12 * self._stamps)
        self._cwnd = FIRST_WINDOW * self._mss
        if self._move("syn ack" if segment.flags & ACK else "syn") and segment.flags & ACK:
            self._ack_due = True
            self._acknowledge(segment, 0, now)
        elif self.nxt:  # both opened at once: say SYN again, now with an acknowledgement
            self.nxt = 0
        self._limit = self.una + segment.window
        self._window_seq, self._window_ack, self._peer_window = 0, self.una, segment.window

    def _acceptable(self, segment: Segment, at: int, now: int) -> bool:
        """RFC 9293 3.10.7.4 first; RFC 7323 5.3: old timestamps. What is not gets an acknowledgement."""
        stamps = segment.stamps
        if stamps and self._stamps and (stamps[0] - self._recent) & 0x80000000 and not segment.flags & RST:
            self._ack_due = True  # older than what has been heard, modulo 2^32
            return False
        length, heard = segment.length, self.heard
        first_syn = segment.flags & SYN and at == 0 and self.state == SYN_RECEIVED
        if first_syn or (heard - (not length) < at + length and at < heard + self._offer.window):
            if stamps and at <= heard:
                self._recent = stamps[0]
            return True
        if not segment.flags & RST:
            self._ack_due = True
            if segment.flags & ACK and at + length == heard:
                self._acknowledge(segment, at, now)
        return False

    def _reset(self, segment: Segment, at: int, now: int) -> None:
        """RFC 5961 section 3: only a reset at the very next byte is believed."""
        if at == self.heard:
            if segment.flags & ACK:
                self.una = max(self.una, min(self.iss.offset(segment.ack, self.una), self.top))
            self._fail("reset" if self.una else "refused")
        else:
            self._challenge(now)

    def _challenge(self, now: int) -> None:
        second = now // 1_000_000_000
        since, count = self._challenged
        self._challenged = (second, count + 1 if since == second else 1)
        if self._challenged[1] <= CHALLENGES:
            self._ack_due = True

    def _fail(self, why: str) -> None:
        self.failure = why
        self.state, self._timer = CLOSED, None

    def _take_in(self, segment: Segment, at: int) -> None:
        """Bytes and FIN, in order or early."""
        if not segment.length or self.peer_closed:
            self._ack_due |= bool(segment.length)
            return
        self._ack_due = True
        if at > self.heard:
            self._keep_early(segment, at)
            return
        self._deliver(segment.payload[self.heard - at :], segment.flags, at + len(segment.payload))
        while self._early and self._early[0][0] <= self.heard and not self.peer_closed:
            start, data, flags = self._early.pop(0)
            if start + len(data) + (flags & FIN) > self.heard:
                self._deliver(data[self.heard - start :], flags, start + len(data))

    def _keep_early(self, segment: Segment, at: int) -> None:
        entry = (at, segment.payload, segment.flags & (FIN | PSH))
        if entry not in self._early:
            insort(self._early, entry)
        self._out.append(self._segment(self.nxt, ACK))  # at once and for each: three of them mean a loss

    def _deliver(self, data: bytes, flags: int, end: int) -> None:
        if data:
            self._arrived.append((data, bool(flags & PSH)))
        self.heard = max(self.heard, end)
        if flags & FIN:
            self.heard += 1
            self.peer_closed = True
            self._move("fin")

    # --- acknowledgements and loss

    def _acknowledge(self, segment: Segment, at: int, now: int) -> bool:
        """What the segment says of our bytes. False when it acknowledges what was never sent."""
        ack = self.iss.offset(segment.ack, self.una)
        if ack > self.top:
            self._challenge(now)
            return False
        self._update_window(segment, at, ack)
        if segment.sacks and self._sack:
            self._note_sacks(segment)
        if ack > self.una:
            self._advance(ack, now)
        elif ack == self.una and self.top > self.una and not segment.length and self._same_window:
            self._duplicate()
        return True

    def _update_window(self, segment: Segment, at: int, ack: int) -> None:
        """RFC 9293 3.10.7.4: only what is newer than what the window came from."""
        if (at, ack) >= (self._window_seq, self._window_ack) and ack >= self.una:
            window = segment.window << (0 if segment.flags & SYN else self._scale_in)
            self._same_window = window == self._peer_window
            self._window_seq, self._window_ack, self._peer_window = at, ack, window
            self._limit = max(self._limit, ack + window) if window else ack
            if not window:
                self.tries = 0  # a closed window may stay closed as long as its probes are answered

    _same_window = False

    def _advance(self, ack: int, now: int) -> None:
        if self._timed and ack >= self._timed[0]:
            self._measure(now - self._timed[1])
            self._timed = None
        acknowledged = ack - self.una
        self.una, self.nxt = ack, max(self.nxt, ack)
        self.tries = self._duplicates = 0
        self._drop_acknowledged(ack)
        if self._srtt:
            self._rto = min(max(self._srtt + max(4 * self._variance, MS), LEAST_RTO), MOST_RTO)
        self._timer = now + self._rto if self.top > ack else None
        if self.state == SYN_RECEIVED:
            self._move("ack")
        if self._fin is not None and ack > self._fin:
            self._move("fin ack")
        if ack < self._recover:
            self._hole = max(self._hole, ack)
            self._fill_hole()
        else:
            self._recover = -1
            slow = self._cwnd < self._ssthresh
            self._cwnd += min(acknowledged, 2 * self._mss) if slow else max(1, self._mss * self._mss // self._cwnd)

    def _drop_acknowledged(self, ack: int) -> None:
        gone = min(ack, self.end) - self._base
        if gone > 0:
            del self._buffer[:gone]
            self._base += gone
        if len(self._cuts) > 32 or not self._buffer:
            del self._cuts[: bisect_right(self._cuts, ack)]
        if self._sacked:
            self._sacked = [block for block in self._sacked if block[1] > ack]

    def _measure(self, rtt: int) -> None:
        """RFC 6298 section 2."""
        self.rtt = self.rtt or rtt
        if not self._srtt:
            self._srtt, self._variance = rtt, rtt // 2
            return
        self._variance += (abs(self._srtt - rtt) - self._variance) // 4
        self._srtt += (rtt - self._srtt) // 8

    def _duplicate(self) -> None:
        self._duplicates += 1
        if self._recover >= 0:
            self._fill_hole()
        elif self._duplicates == DUPLICATES:
            self._ssthresh = max((self.top - self.una) // 2, 2 * self._mss)
            self._cwnd = self._ssthresh
            self._recover, self._hole = self.top, self.una
            self._fill_hole()

    def _note_sacks(self, segment: Segment) -> None:
        for left, right in segment.sacks:
            start, stop = self.iss.offset(left, self.una), self.iss.offset(right, self.una)
            if self.una < start < stop <= self.top and (start, stop) not in self._sacked:
                insort(self._sacked, (start, stop))

    def _fill_hole(self) -> None:
        """Send the next segment again that the peer does not have; without SACK only the first one is known."""
        at = self._hole
        for start, stop in self._sacked:
            if start <= at < stop:
                at = stop
        known = self._sacked[-1][0] if self._sacked else self.una + 1
        if at < min(known, self._recover):
            segment = self._next_segment(at, self._recover)
            if segment:
                self._out.append(segment)
                self._hole = at + segment.length
                self._timed = None
                self.retransmitted += 1

    # --- time

    def next_deadline(self) -> int | None:
        """When `timeout` wants to be called; None: never."""
        return self._timer

    def timeout(self, now: int) -> None:
        """Time has passed: send again what was not acknowledged, slower each time (RFC 6298 section 5)."""
        if self._timer is None or now < self._timer:
            return
        if self.tries >= self._retries:
            self._fail("no answer")
            return
        self.tries += 1
        self._rto = min(self._rto * 2, MOST_RTO)
        self._timed = None
        self._timer = now + self._rto
        if self.top > self.una and (self._limit > self.una or not self.una):
            self._ssthresh = max((self.top - self.una) // 2, 2 * self._mss)
            self._cwnd, self._recover, self._duplicates = self._mss, -1, 0
            self._sacked.clear()
            self.nxt = self.una
        else:  # the window is closed: one byte beyond it makes the peer say whether it still is
            segment = self._next_segment(self.una, self.una + 1)
            if segment:
                self._out.append(segment)
                self.top = max(self.top, self.una + segment.length)

    # --- what we say

    def segments_to_send(self, now: int) -> list[Segment]:
        """What goes out now. Each segment is returned once; what gets lost comes again by itself."""
        if self.state not in (CLOSED, LISTEN):
            self._speak(now)
        out, self._out = self._out, []
        told = any(segment.flags & ACK and not segment.again for segment in out)
        if self._ack_due and not told and self.state not in (CLOSED, LISTEN, SYN_SENT):
            out.append(self._segment(self.nxt, ACK))
        self._ack_due = False
        if self._stamps:
            clock = (now // MS + self.stamp) & 0xFFFFFFFF
            for segment in out:
                segment.stamps = (clock, self._recent if segment.flags & ACK else 0)
        return out

    def _speak(self, now: int) -> None:
        """New segments, and after a timeout old ones, as far as both windows reach."""
        first = self.nxt
        while True:
            reach = min(self._limit, self.una + self._cwnd) if self.nxt else 1
            segment = self._next_segment(self.nxt, reach)
            if segment is None:
                break
            self._out.append(segment)
            if segment.again:
                self.retransmitted += 1
            elif self._timed is None:
                self._timed = (self.nxt + segment.length, now)
            self.nxt += segment.length
            self.top = max(self.top, self.nxt)
            if segment.flags & FIN:
                self._move("close")
        waiting = self.top > self.una or (self.nxt and self.nxt < self.end + (self._fin is not None))
        if waiting and (self._timer is None or first == self.una < self.nxt):
            self._timer = now + self._rto

    def _next_segment(self, at: int, reach: int) -> Segment | None:
        """The segment that begins at an offset and ends at a cut, at the largest size or where the windows end."""
        if at == 0:
            flags = SYN if self.state == SYN_SENT else SYN | ACK
            return self._segment(0, flags, again=self.top > 0) if self.top == 0 or self.nxt == 0 else None
        if self.state in (SYN_SENT, SYN_RECEIVED) and self.una == 0:
            return None
        stop = min(at + self._mss, self.end)
        cut = bisect_right(self._cuts, at)
        if cut < len(self._cuts):
            stop = min(stop, self._cuts[cut])
        fin = self._fin is not None and stop == self._fin
        if stop > reach:  # part of a segment only when nothing else is on its way (RFC 9293, 3.8.6.2)
            if at > self.una or reach <= at:
                return None
            stop, fin = reach, False
        if stop <= at and not (fin and at <= stop):
            return None
        again = at < self.top
        data = bytes(self._buffer[at - self._base : stop - self._base])
        last = bisect_left(self._cuts, stop) < len(self._cuts) and self._cuts[bisect_left(self._cuts, stop)] == stop
        self.sent_bytes += 0 if again else len(data)
        return self._segment(at, ACK | (PSH if data and last else 0) | (FIN if fin else 0), data, again=again)

    def _segment(self, at: int, flags: int, data: bytes = b"", again: bool = False) -> Segment:
        offer = self._offer
        window = offer.window >> (self._scale_out or 0) if not flags & SYN else offer.window
        ack = (int(self._irs) + self.heard) & 0xFFFFFFFF if flags & ACK else 0
        segment = Segment((int(self.iss) + at) & 0xFFFFFFFF, ack, flags, min(window, 0xFFFF), data, again=again)
        if flags & SYN:
            segment.mss, segment.wscale, segment.sack_ok = offer.mss, self._scale_out, self._sack
        elif self._sack and self._early and flags & ACK:
            segment.sacks = self._sack_blocks()
        return segment

    def _sack_blocks(self) -> tuple[tuple[int, int], ...]:
        """At most three ranges that arrived early, joined where they touch (RFC 2018)."""
        blocks: list[list[int]] = []
        for start, data, _ in self._early:
            if blocks and start <= blocks[-1][1]:
                blocks[-1][1] = max(blocks[-1][1], start + len(data))
            else:
                blocks.append([start, start + len(data)])
        irs = int(self._irs)
        return tuple(((irs + a) & 0xFFFFFFFF, (irs + b) & 0xFFFFFFFF) for a, b in blocks[:3] if b > a)
