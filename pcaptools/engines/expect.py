"""The expectation engine: plays one side of a script over our own TCP (engines/tcp.py).

`Dialogue` (engines/dialogue.py) knows streams only: bytes in, bytes out, the turn points between them. `Conversation`
joins one to a connection; `Exchange` (engines/exchange.py) is one over datagrams; over the kernel's TCP a dialogue
needs neither (engines/play_streams.py). A whole network can be simulated: two conversations back to back.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from operator import attrgetter

from pcaptools.core.wire import FIN, RST, SYN, Segment
from pcaptools.engines.dialogue import FAREWELL, Dialogue, Event, Outcome, Rules
from pcaptools.engines.script import Part
from pcaptools.engines.tcp import Connection
from pcaptools.engines.tcp_states import CLOSED, TIME_WAIT


class Conversation:
    """A script played over TCP of our own.

    Feed it segments (`receive`) and the time (`timeout`), send what `segments_to_send` gives. done: nothing remains to
    be done but to answer repetitions; `dialogue.outcome` says how it went.
    """

    def __init__(self, part: Part, rules: Rules, connection: Connection, *, passive: bool = False) -> None:
        self.dialogue = Dialogue(part, rules)
        self.connection = connection
        self._open = self._reset_due = False
        self._events: list[Event] = []
        self.telling = True
        """Whether anybody wants to know the events."""
        self.choose: Callable[[bytes], Part] | None = None
        """Which part to play, decided by the first bytes that arrive."""
        self.sent = self.received = 0
        """Segments."""
        if passive:
            connection.listen()
        else:
            connection.open()

    @property
    def done(self) -> bool:
        """Whether there is an outcome."""
        return self.dialogue.outcome is not None

    def receive(self, segment: Segment, now: int) -> None:
        """Take in a segment."""
        connection, dialogue = self.connection, self.dialogue
        self.received += 1
        una, heard = connection.una, connection.heard
        connection.receive(segment, now)
        if connection.una > una:
            dialogue.progress(now)
        if self.telling and (connection.heard > heard or connection.failure):
            self._events.append(Event("received", _packet_at(dialogue.part.cuts, dialogue, connection.heard), ""))
        if self.done:
            return
        self._listen(now)

    def _listen(self, now: int) -> None:
        """Hand on what the connection learned."""
        connection, dialogue = self.connection, self.dialogue
        if not self._open and connection.una >= 1 and connection.heard >= 1:
            self._open = True
            dialogue.opened(now)
        arrived = connection.take()
        if arrived and self.choose and not dialogue.received_bytes and not dialogue.sends:
            part, self.choose = self.choose(arrived[0][0]), None
            if part is not dialogue.part:
                self.dialogue = dialogue = Dialogue(part, dialogue.rules)
                dialogue.opened(now)
        for data, push, acknowledged in arrived:
            dialogue.received(data, push, now, acknowledged - 1)
        if connection.peer_closed and not dialogue.peer_ended:
            dialogue.ended(now)
        self._act()
        self._settle()

    def _act(self) -> None:
        for action in self.dialogue.actions():
            if action[0] == "send":
                self.connection.send(action[1], action[2])
            elif action[0] == "close":
                self.connection.close()
            elif action[0] == "reset":
                self._reset_due = True
            else:
                self.connection.abort()
        if self._reset_due and self.connection.una >= self.connection.end:
            self.connection.abort()

    def _settle(self) -> None:
        """Whether it is over, and how."""
        connection, dialogue = self.connection, self.dialogue
        if self.done:
            return
        finished = dialogue.finished
        if connection.failure:
            arrived = connection.una >= connection.end or dialogue.part.their_end.kind == "rst"
            if dialogue.may_be_reset and arrived and connection.failure == "reset":
                dialogue.outcome = Outcome(True, "", "")
            else:
                self._fail()
        elif connection.state == CLOSED and finished:
            dialogue.outcome = Outcome(True, "", "")  # by our reset, or our FIN was the last
        elif finished and connection.all_acknowledged:
            expected = dialogue.part.their_end.kind and dialogue.rules.strict
            if connection.state in (TIME_WAIT, CLOSED) or not (connection.peer_closed or self._still_waits(expected)):
                dialogue.outcome = Outcome(True, "", "")

    def _still_waits(self, strictly: bool) -> bool:
        """Whether the other side's FIN is still hoped for."""
        return bool(strictly or self.dialogue.part.their_end.kind == "fin") and not self._gave_up

    _gave_up = False

    def _fail(self) -> None:
        connection, dialogue = self.connection, self.dialogue
        part, turn = dialogue.part, dialogue.turn
        if connection.failure == "refused":
            dialogue.fail("refused", "refused: the host answered the SYN by a reset")
        elif connection.failure == "reset":
            got = f"{dialogue.received_bytes} of {len(part.theirs)} bytes"
            dialogue.fail("closed early", f"closed early: reset by the host in turn {turn} after {got}")
        else:
            packet = _own_packet(part, connection.una)
            tries = "1 try" if not connection.tries else f"{connection.tries + 1} tries"
            dialogue.fail("no answer", f"no answer to packet {packet} after {tries}")

    def segments_to_send(self, now: int) -> list[Segment]:
        """What goes out now."""
        segments = self.connection.segments_to_send(now)
        self.sent += len(segments)
        for segment in segments if self.telling else ():
            if segment.length or segment.flags & RST:
                at = self.connection.iss.offset(segment.seq, self.connection.una)
                packet = _own_packet(self.dialogue.part, at, segment.flags)
                self._events.append(Event("resent" if segment.again else "sent", packet, ""))
        if not self.done and self.connection.state == CLOSED:
            self._settle()
        return segments

    def next_deadline(self) -> int | None:
        """When `timeout` wants to be called."""
        mine, streams = self.connection.next_deadline(), self.dialogue.next_deadline()
        return mine if streams is None else streams if mine is None else min(mine, streams)

    def timeout(self, now: int) -> None:
        """Time has passed."""
        self.connection.timeout(now)
        dialogue = self.dialogue
        if self.done:
            return
        quiet = now >= dialogue.last + dialogue.rules.timeout
        if quiet and (not self._open or not self.connection.all_acknowledged):
            self.connection.failure = self.connection.failure or "no answer"
            self.connection.abort()
        elif quiet and dialogue.answered and dialogue.rules.strict:
            dialogue.fail("not closed", "the host did not close the connection as it did in the recording")
            self.connection.abort()
        elif self._farewell(now):
            self._gave_up = True
            self.connection.abort()
        if self._open:
            dialogue.timeout(now, self.connection.gap)
        self._act()
        self._settle()

    def _farewell(self, now: int) -> bool:
        """Whether we have closed and waited long enough for the other side to do so."""
        dialogue = self.dialogue
        late = now >= dialogue.last + FAREWELL
        return late and dialogue.closed and dialogue.answered and self.connection.all_acknowledged

    def started(self, now: int) -> None:
        """The first segment goes out about now: silence is counted from here."""
        self.dialogue.last = now

    def events(self) -> list[Event]:
        """What happened since the last call."""
        events, self._events = [*self._events, *self.dialogue.events()], []
        return events


def _own_packet(part: Part, at: int, flags: int = 0) -> int:
    """The number of our recorded packet that a segment at an offset stands for."""
    if flags & SYN or at <= 0:
        return part.opening
    k = bisect_right(part.sends, at - 1, key=attrgetter("start")) - 1
    if k >= 0 and at - 1 < part.sends[k].end and not flags & RST:
        return part.sends[k].packet
    return part.end.packet if flags & (FIN | RST) or not part.sends else part.sends[-1].packet


def _packet_at(cuts: list[int], dialogue: Dialogue, heard: int) -> int:
    """The number of the recorded packet that brought what has been heard now."""
    if heard <= 1:
        return 2
    k = bisect_left(cuts, heard - 1)
    if k < len(cuts):
        return dialogue.part.their_packets[k]
    return dialogue.part.their_end.packet
