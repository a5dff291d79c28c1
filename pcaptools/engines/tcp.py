"""One end of a TCP connection, without a socket or a clock: RFC 9293, with RFC 6298 (retransmission timer), 5681 and
6675 (loss recovery, simplified), 7323 (window scale, timestamps), 2018 (SACK) and 5961 (challenge ACKs).

Both streams are counted from 0 without wrapping: 0 is the SYN, the first byte is 1, the FIN follows the last one.
Sequence numbers exist at the edge only, where `Seq.offset` makes such a count of them::

    acknowledged      sent            queued                 received            arrived early
    0 ......... una ........ nxt .......... end         0 ......... heard   [early] [early]
                      (top: the highest nxt so far)

What happens to a state at an event is one table, TRANSITIONS in tcp_states.py.
The two streams are in tcp_streams.py, the retransmission timer in tcp_timer.py, loss and congestion in tcp_recovery.py.
"""

from __future__ import annotations

from collections import namedtuple

from pcaptools.core.wire import ACK, FIN, PSH, RST, SYN, Segment, Seq
from pcaptools.engines.tcp_recovery import Recovery
from pcaptools.engines.tcp_states import CLOSED, LISTEN, SYN_RECEIVED, SYN_SENT, TIME_WAIT, TRANSITIONS
from pcaptools.engines.tcp_streams import Incoming, Outgoing
from pcaptools.engines.tcp_timer import MS, Timer

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
        self.sent_bytes = 0
        self.iss = Seq(isn)
        self.una = self.nxt = self.top = 0
        self._irs = Seq(0)
        self._offer = offer
        self._retries = retries
        self._stamp = first_stamp
        self._stamps = offer.timestamps
        self._recent = 0
        self._sack = offer.sack
        self._scale_out = offer.wscale
        self._scale_in = 0
        self._mss = DEFAULT_MSS
        self._limit = 0  # of the peer's window, as an offset
        self._window_seq = self._window_ack = 0
        self._peer_window = 0
        self._same_window = False
        self._outgoing, self._incoming, self._timer = Outgoing(), Incoming(), Timer()
        self._recovery = Recovery()
        self._out: list[Segment] = []
        self._ack_due = False
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
        self._outgoing.add(data, cuts)

    def close(self) -> None:
        """No more bytes follow: a FIN goes behind the last one."""
        self._outgoing.close()

    def abort(self) -> None:
        """Reset the connection."""
        if self.state not in (CLOSED, LISTEN, SYN_SENT, TIME_WAIT):
            self._out.append(self._segment(self.nxt, RST | ACK))
        self.state = CLOSED
        self._timer.stop()

    @property
    def end(self) -> int:
        """The offset behind the last byte queued."""
        return self._outgoing.end

    @property
    def heard(self) -> int:
        """The offset of the byte that is awaited."""
        return self._incoming.heard

    @property
    def gap(self) -> bool:
        """Whether bytes have come behind others that have not."""
        return self._incoming.gap

    @property
    def peer_closed(self) -> bool:
        """Whether the peer's FIN has been heard."""
        return self._incoming.closed

    @property
    def rtt(self) -> int:
        """The first round trip measured, ns; 0 when there is none."""
        return self._timer.rtt

    @property
    def all_acknowledged(self) -> bool:
        """Whether every byte, and the FIN where there is one, has been acknowledged."""
        return self.una >= self._outgoing.all

    @property
    def mss(self) -> int:
        """The largest segment that goes out, bytes without headers."""
        return self._mss

    def shrink(self, mss: int) -> None:
        """The path carries no larger segments (ICMP: fragmentation needed, packet too big): send again from una."""
        if 64 <= mss < self._mss:
            self._mss = mss
            self.nxt = max(self.una, 1)

    def take(self) -> list[tuple[bytes, bool, int]]:
        """What has arrived in order since the last call: (bytes, whether pushed, how far the peer had heard us)."""
        return self._incoming.take()

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
            if not flags & RST:  # the host remembers an old connection: half open (RFC 9293, 3.5.1)
                self._refuse(segment)
                if not self.tries:  # now it has forgotten it
                    self.tries, self.nxt = 1, 0
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
        self._irs, self._incoming.heard = Seq(segment.seq), 1
        offer = self._offer
        self._stamps = offer.timestamps and segment.stamps is not None
        self._recent = segment.stamps[0] if segment.stamps else 0
        self._sack = offer.sack and segment.sack_ok
        scaled = offer.wscale is not None and segment.wscale is not None
        self._scale_out = offer.wscale if scaled else None
        self._scale_in = segment.wscale or 0 if scaled else 0
        self._mss = max(64, min(offer.mss, segment.mss or DEFAULT_MSS) - 12 * self._stamps)
        self._recovery.begin(self._mss)
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
        length, heard = segment.length, self._incoming.heard
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
        self.state = CLOSED
        self._timer.stop()

    def _take_in(self, segment: Segment, at: int) -> None:
        """Bytes and FIN, in order or early."""
        self._ack_due |= bool(segment.length)
        if not segment.length or self.peer_closed:
            return
        if not self._incoming.put(at, segment.payload, segment.flags, self.una):
            self._out.append(self._segment(self.nxt, ACK))  # at once and for each: three of them mean a loss
        if self._incoming.closed:
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
        elif self.top > self.una == ack and not segment.length and self._same_window:
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

    def _advance(self, ack: int, now: int) -> None:
        self._timer.acknowledged(ack, now)
        acknowledged = ack - self.una
        self.una, self.nxt = ack, max(self.nxt, ack)
        self.tries = 0
        self._outgoing.drop(ack)
        if self.top > ack:
            self._timer.start(now)
        else:
            self._timer.stop()
        if self.state == SYN_RECEIVED:
            self._move("ack")
        if self._outgoing.fin is not None and ack > self._outgoing.fin:
            self._move("fin ack")
        if self._recovery.acknowledged(ack, acknowledged, self._mss):
            self._fill_hole()

    def _duplicate(self) -> None:
        if self._recovery.duplicate(self.una, self.top, self._mss):
            self._fill_hole()

    def _note_sacks(self, segment: Segment) -> None:
        for left, right in segment.sacks:
            start, stop = self.iss.offset(left, self.una), self.iss.offset(right, self.una)
            if self.una < start < stop <= self.top:
                self._recovery.sacked(start, stop)

    def _fill_hole(self) -> None:
        """Send the next segment again that the peer does not have."""
        at = self._recovery.hole(self.una)
        segment = None if at is None else self._next_segment(at, self._recovery.until)
        if at is not None and segment:
            self._out.append(segment)
            self._recovery.filled(at + segment.length)
            self._timer.sent_again()
            self.retransmitted += 1

    # --- time

    def next_deadline(self) -> int | None:
        """When `timeout` wants to be called; None: never."""
        return self._timer.due

    def timeout(self, now: int) -> None:
        """Time has passed: send again what was not acknowledged, slower each time (RFC 6298 section 5)."""
        if self._timer.due is None or now < self._timer.due:
            return
        if self.tries >= self._retries:
            self._fail("no answer")
            return
        self.tries += 1
        self._timer.expired(now)
        if self.top > self.una and (self._limit > self.una or not self.una):
            self._recovery.expired(self.una, self.top, self._mss)
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
            clock = (now // MS + self._stamp) & 0xFFFFFFFF
            for segment in out:
                segment.stamps = (clock, self._recent if segment.flags & ACK else 0)
        return out

    def _speak(self, now: int) -> None:
        """New segments, and after a timeout old ones, as far as both windows reach."""
        first = self.nxt
        while True:
            reach = min(self._limit, self.una + self._recovery.window) if self.nxt else 1
            segment = self._next_segment(self.nxt, reach)
            if segment is None:
                break
            self._out.append(segment)
            if segment.again:
                self.retransmitted += 1
            else:
                self._timer.sent(self.nxt + segment.length, now)
            self.nxt += segment.length
            self.top = max(self.top, self.nxt)
            if segment.flags & FIN:
                self._move("close")
        waiting = self.top > self.una or (self.nxt and self.nxt < self._outgoing.all)
        if waiting and (self._timer.due is None or first == self.una < self.nxt):
            self._timer.start(now)

    def _next_segment(self, at: int, reach: int) -> Segment | None:
        """The segment that begins at an offset and ends at a cut, at the largest size or where the windows end."""
        if at == 0:
            flags = SYN if self.state == SYN_SENT else SYN | ACK
            return self._segment(0, flags, again=self.top > 0) if self.top == 0 or self.nxt == 0 else None
        if self.state in (SYN_SENT, SYN_RECEIVED) and self.una == 0:
            return None
        outgoing = self._outgoing
        stop = outgoing.segment_end(at, self._mss)
        fin = stop == outgoing.fin
        if stop > reach:  # part of a segment only when nothing else is on its way (RFC 9293, 3.8.6.2)
            if at > self.una or reach <= at:
                return None
            stop, fin = reach, False
        if stop <= at and not (fin and at <= stop):
            return None
        again = at < self.top
        data, pushed = outgoing.piece(at, stop)
        self.sent_bytes += 0 if again else len(data)
        return self._segment(at, ACK | (PSH if data and pushed else 0) | (FIN if fin else 0), data, again=again)

    def _segment(self, at: int, flags: int, data: bytes = b"", again: bool = False) -> Segment:
        offer = self._offer
        window = offer.window >> (self._scale_out or 0) if not flags & SYN else offer.window
        ack = (int(self._irs) + self._incoming.heard) & 0xFFFFFFFF if flags & ACK else 0
        segment = Segment((int(self.iss) + at) & 0xFFFFFFFF, ack, flags, min(window, 0xFFFF), data, again=again)
        if flags & SYN:
            segment.mss, segment.wscale, segment.sack_ok = offer.mss, self._scale_out, self._sack
        elif self._sack and self._incoming.gap and flags & ACK:
            irs = int(self._irs)
            segment.sacks = tuple(((irs + a) & 0xFFFFFFFF, (irs + b) & 0xFFFFFFFF) for a, b in self._incoming.blocks())
        return segment
