"""Exchanges of datagrams: a script played without a connection."""

from __future__ import annotations

from collections.abc import Callable

from pcaptools.engines.dialogue import ANY, SHOWN, Dialogue, Event, Mismatch, Outcome, Rules
from pcaptools.engines.script import Part
from pcaptools.engines.tcp_timer import MS

DATAGRAM_WAIT = 1000 * MS
"""A datagram without an answer is sent again after this, doubling."""


class Exchange:
    """A script of datagrams, played without a connection: an answer that does not come is asked for again."""

    def __init__(self, part: Part, rules: Rules, *, passive: bool = False) -> None:
        self.dialogue = Dialogue(part, rules._replace(strict=False))
        self.sent = self.received = self.retransmitted = 0
        self.rtt = 0
        self._expected = list(zip([0, *part.cuts], part.cuts, strict=False))
        self._last: list[bytes] = []
        self._packets: list[int] = []  # the numbers of those in the flow
        self._out: list[bytes] = []
        self._again: int | None = None
        self._tries = 0
        self._asked = 0
        self._passive = passive
        self.choose: Callable[[bytes], Part] | None = None
        """Which part to play, decided by the first datagram that arrives."""
        self._events: list[Event] = []

    @property
    def done(self) -> bool:
        """Whether there is an outcome."""
        return self.dialogue.outcome is not None

    def started(self, now: int) -> None:
        """Begin."""
        self.dialogue.opened(now)
        self._act(now)

    def receive(self, payload: bytes, now: int) -> None:
        """Take in a datagram."""
        if self.done or not payload:
            return
        if self.choose and not self.received and not self.dialogue.sends:
            self._play(self.choose(payload), now)
        self.rtt = self.rtt or now - self._asked
        packets = self.dialogue.part.their_packets
        self._events.append(Event("received", packets[self.received] if self.received < len(packets) else 0, ""))
        start, end = self._expected[self.received] if self.received < len(self._expected) else (0, 0)
        self.received += 1
        dialogue = self.dialogue
        if dialogue.rules.expect != ANY and len(payload) != end - start:
            wanted = dialogue.part.theirs[start:end]
            differs = (k for k, (a, b) in enumerate(zip(wanted, payload, strict=False)) if a != b)
            at = next(differs, min(len(wanted), len(payload)))
            what = f"has {len(payload)} bytes instead of {end - start}"
            shown = wanted[at : at + SHOWN], payload[at : at + SHOWN]
            dialogue.differs(Mismatch(dialogue.turn, at, *shown, what), now)
            payload = wanted if end else b""
        if not dialogue.outcome:
            dialogue.received(payload, True, now, len(dialogue.part.mine))
        self._act(now)

    def _play(self, part: Part, now: int) -> None:
        """This part instead."""
        if part is not self.dialogue.part:
            self.dialogue = Dialogue(part, self.dialogue.rules)
            self._expected = list(zip([0, *part.cuts], part.cuts, strict=False))
            self.dialogue.opened(now)

    def _act(self, now: int) -> None:
        for action in self.dialogue.actions():
            if action[0] == "send":
                pieces = [action[1][a:b] for a, b in zip((0, *action[2]), action[2], strict=False)]
                self._out += pieces
                self._last, self._tries, self._asked = pieces, 0, now
                said = self.dialogue.part.sends[: self.dialogue.sends]
                self._packets = [send.packet for send in said[-len(pieces) :]]
                self._events += [Event("sent", packet, "") for packet in self._packets]
        dialogue = self.dialogue
        waiting = self._last and not dialogue.answered and not self._passive
        self._again = now + (DATAGRAM_WAIT << self._tries) if waiting else None
        if dialogue.answered and dialogue._sent >= len(dialogue.part.sends) and not dialogue.outcome:
            dialogue.outcome = Outcome(True, "", "")

    def datagrams_to_send(self) -> list[bytes]:
        """What goes out now."""
        out, self._out = self._out, []
        self.sent += len(out)
        return out

    def next_deadline(self) -> int | None:
        """When `timeout` wants to be called."""
        times = [time for time in (self._again, self.dialogue.next_deadline()) if time is not None]
        return min(times, default=None) if not self.done else None

    def timeout(self, now: int) -> None:
        """Time has passed."""
        dialogue = self.dialogue
        if self._again is not None and now >= self._again and not dialogue._got:
            self._tries += 1
            if self._tries >= dialogue.rules.datagram_retries:
                where = f"the datagram of turn {dialogue.turn}"
                dialogue.fail("no answer", f"no answer to {where} after {self._tries} tries")
            else:
                self._out += self._last
                self.retransmitted += len(self._last)
                self._again = now + (DATAGRAM_WAIT << self._tries)
                self._events += [Event("resent", packet, "") for packet in self._packets]
            return
        dialogue.timeout(now)
        self._act(now)

    def events(self) -> list[Event]:
        """What happened since the last call."""
        events, self._events = [*self._events, *self.dialogue.events()], []
        return events
