"""Dialogues: one side of a script as streams. What is heard is held against the recording; what is said waits for it.

    waiting --answer complete--> (think) --sent--> waiting ... --last answer--> closing --both ends closed--> done
       |                                                          |
       +-- mismatch, silence, closed early, reset: failed --------+

No socket, no clock, no printing: times are arguments (ns), what happened is in `events()`, the end in `outcome`.
"""

from __future__ import annotations

from collections import namedtuple

from pcaptools.engines.script import Part, Turn
from pcaptools.engines.tcp_timer import MS

EXACT, LENGTH, ANY = "exact", "length", "any"
STOP, WARN, CONTINUE = "stop", "warn", "continue"

IDLE_PUSHED, IDLE = 50 * MS, 300 * MS
"""When an answer of any length is over: this long after a pushed segment, and after one that is not."""

FAREWELL = 1000 * MS
"""How long the other side may take to close as recorded before we close first."""

SHOWN = 16
"""Bytes of expected and got in a mismatch."""

Rules = namedtuple(
    "Rules",
    "expect regexes ignored strict on_mismatch recorded_pace timeout datagram_retries",
    defaults=(LENGTH, (), (), False, STOP, False, 30_000 * MS, 3),
)
"""What is demanded. regexes: (turn or None, compiled); ignored: (turn or None, from, to) bytes of an answer that may
differ; timeout: ns without anything new."""

Mismatch = namedtuple("Mismatch", "turn offset expected got what")
"""Where an answer is not the recorded one: offset in the answer, from 0; expected and got as bytes, a few of them."""

Outcome = namedtuple("Outcome", "ok cause text")
"""How it ended. cause: "" or one word (refused, reset, no answer, mismatch, closed early, not closed ...)."""

Event = namedtuple("Event", "kind packet text")
"""Something to tell: sent, resent, received, met, mismatch."""


class Dialogue:
    """One side of a script as streams.

    Tell it `opened`, `received`, `ended` (the other side closed) and the time (`timeout`); `actions()` says what to do:
    ("send", bytes, offsets in them where segments end), ("close",), ("reset",): as recorded, behind our last byte, and
    ("abort",): at once. turn: the last one reached.
    """

    def __init__(self, part: Part, rules: Rules) -> None:
        self.part, self.rules = part, rules
        self.outcome: Outcome | None = None
        self.mismatch: Mismatch | None = None
        self.note = ""
        self.received_bytes = 0
        self.peer_ended = self.closed = self.started = False
        self._at = 0  # turn being heard
        self._heard = 0  # script offset up to which the other side's stream counts as heard
        self._got = 0  # bytes of this turn
        self._answer = bytearray()
        self._sent = 0
        self._early: tuple[int, int] | None = None
        self.last = 0  # when something new came
        self._free = 0  # when the next send may go, as far as known
        self._idle: int | None = None
        self._compare = rules.expect == EXACT
        self._actions: list[tuple] = []
        self._events: list[Event] = []

    @property
    def turn(self) -> int:
        """The turn that is being played, from 1."""
        turns = self.part.turns
        return turns[min(self._at, len(turns) - 1)].number if turns else 1

    @property
    def answered(self) -> bool:
        """Whether every answer has been heard, as far as it was in the recording: behind our reset nothing was."""
        return self._at >= len(self.part.turns) or (self.closed and self.part.end.kind == "rst")

    @property
    def sends(self) -> int:
        """How many recorded segments of ours have been said."""
        return self._sent

    @property
    def finished(self) -> bool:
        """Whether nothing remains to be said or heard: a reset is as good as recorded."""
        said = self.closed or (self.part.their_end.kind == "rst" and self._sent >= len(self.part.sends))
        return self.answered and said

    @property
    def may_be_reset(self) -> bool:
        """Whether a reset by the other side comes as recorded: when it has heard what it had heard then."""
        end = self.part.their_end
        return self.finished or (self.answered and end.kind == "rst" and self._said >= end.after)

    def actions(self) -> list[tuple]:
        """What is to be done, since the last call."""
        actions, self._actions = self._actions, []
        return actions

    def events(self) -> list[Event]:
        """What happened, since the last call."""
        events, self._events = self._events, []
        return events

    # --- what happens

    def opened(self, now: int) -> None:
        """The connection is there."""
        self.started = True
        self.last = self._free = now
        self._go_on(now)

    def received(self, data: bytes, push: bool, now: int, heard: int | None = None) -> None:
        """Bytes from the other side, in order. push: they end a segment that was pushed. heard: how many of our bytes
        the other side had when it sent these; None: all that we have said."""
        self.last = now
        self.received_bytes += len(data)
        sent = self._sent
        heard = self._said if heard is None else heard
        if self.rules.strict:
            self._check_boundary(len(data), now)
        while data and not self.outcome:
            turn = self.part.turns[self._at] if self._at < len(self.part.turns) else None
            if turn is None:
                self._too_much(data, now)
                return
            if self._came_early(turn, data, heard, now):
                return
            room = len(data) if self.rules.expect == ANY else turn.end - turn.start - self._got
            piece, data = data[:room], data[room:]
            self._hear(turn, piece, sent, push and not data, now)
        self._go_on(now)

    def ended(self, now: int) -> None:
        """The other side closed its stream."""
        self.peer_ended, self.last = True, now
        if self.rules.expect == ANY and not self.answered and self._got:
            self._complete(self.part.turns[self._at], now)
        if not self.answered and not self.outcome:
            self._fall_short("closed early", "closed early", now)
        self._go_on(now)

    def fail(self, cause: str, text: str) -> None:
        """It ends here."""
        if not self.outcome:
            self.outcome = Outcome(False, cause, text)

    # --- time

    def next_deadline(self) -> int | None:
        """When `timeout` wants to be called."""
        if self.outcome:
            return None
        times = [self.last + self.rules.timeout]
        if self._idle is not None:
            times.append(self._idle)
        due = self._due()
        if due is not None:
            times.append(due)
        return min(times)

    def timeout(self, now: int, gap: bool = False) -> None:
        """Time has passed. gap: something is known to be missing that the other side has sent."""
        if self.outcome:
            return
        if gap and self._idle is not None:
            self._idle = max(self._idle, now + IDLE_PUSHED)
        if self._idle is not None and now >= self._idle:
            self._idle = None
            if not self.answered:
                self._complete(self.part.turns[self._at], now)
        if now >= self.last + self.rules.timeout and not self.answered:
            self._fall_short("no answer", f"nothing more within {self.rules.timeout / 1e9:g} s", now)
            self.last = now
        self._go_on(now)

    def progress(self, now: int) -> None:
        """Something of ours was acknowledged: the other side is alive."""
        self.last = now

    # --- what is heard

    def _hear(self, turn: Turn, piece: bytes, sent: int, push: bool, now: int) -> None:
        if self._compare:
            self._check_bytes(turn, piece, sent, now)
        if self.rules.regexes:
            self._answer += piece
        self._got += len(piece)
        if self.rules.expect != ANY:
            self._heard += len(piece)
            if self._got >= turn.end - turn.start:
                self._complete(turn, now)
        elif push and self._got == turn.end - turn.start:
            self._complete(turn, now)
        else:
            self._idle = now + (IDLE_PUSHED if push else IDLE)

    @property
    def _said(self) -> int:
        """Bytes of ours that have been said."""
        return self.part.sends[self._sent - 1].end if self._sent else 0

    def _came_early(self, turn: Turn, data: bytes, heard: int, now: int) -> bool:
        """Bytes that were sent before our question was heard belong to the answer before. Returns whether it ends here.

        With rule "length" that is a mismatch where the recorded host waited for the question, unless the bytes are
        those that it said then: a host that does not wait may well put two answers into one segment.
        """
        if self._got or not self._at or heard > turn.asked:
            return False
        expected = self.part.theirs[turn.start : turn.start + len(data)]
        if data[: len(expected)] == expected:
            return False
        before = self.part.turns[self._at - 1]
        self._early = self._early or (before.number, before.end - before.start)
        if turn.waited and self.rules.expect == LENGTH:
            self.differs(Mismatch(*self._early, b"", data[:SHOWN], "is longer"), now)
        return self.outcome is not None

    def _complete(self, turn: Turn, now: int) -> None:
        """An answer is there as demanded, or is let pass."""
        self._idle = None
        for number, pattern in self.rules.regexes:
            if number in (None, turn.number) and not pattern.search(self._answer):
                what = f"does not match {pattern.pattern.decode(errors='replace')}"
                shown = bytes(self._answer[:SHOWN])
                self.differs(Mismatch(turn.number, 0, b"", shown, what), now)
        self._answer.clear()
        self._at += 1
        self._heard, self._got = turn.end, 0
        self._free = max(self._free, now)
        if not self.outcome:
            self._tell("met", turn.packet, f"turn {turn.number}")

    def _check_bytes(self, turn: Turn, piece: bytes, sent: int, now: int) -> None:
        at = turn.start + self._got
        expected = self.part.theirs[at : at + len(piece)]
        if piece == expected:
            return
        for k, (a, b) in enumerate(zip(expected, piece, strict=True)):
            if a != b and not self._ignored(turn.number, self._got + k):
                number, offset = turn.number, self._got + k
                before = self.part.turns[self._at - 1] if self._at else None
                if before and not self._got and any(s.turn == turn.number for s in self.part.sends[sent:]):
                    number, offset = before.number, before.end - before.start + k
                    expected = b""
                shown = expected[k : k + SHOWN], piece[k : k + SHOWN]
                self.differs(Mismatch(number, offset, *shown, "differs" if expected else "is longer"), now)
                self._compare = False
                return

    def _ignored(self, turn: int, offset: int) -> bool:
        return any(number in (None, turn) and low <= offset <= high for number, low, high in self.rules.ignored)

    def _check_boundary(self, size: int, now: int) -> None:
        """--strict: a segment ends where the recorded one did."""
        cuts, at = self.part.cuts, self.received_bytes
        if at not in cuts and not self.mismatch:
            ends = [cut for cut in cuts if cut > at - size]
            turn = next((turn for turn in self.part.turns if turn.start < at <= turn.end), None)
            start = turn.start if turn else 0
            what = f"has a segment of {size} bytes where {ends[0] - at + size} were recorded" if ends else "is longer"
            self.differs(Mismatch(turn.number if turn else self.turn, at - size - start, b"", b"", what), now)

    def _too_much(self, data: bytes, now: int) -> None:
        if self.rules.expect == ANY or self.mismatch:
            return
        turns = self.part.turns
        number, offset = (turns[-1].number, turns[-1].end - turns[-1].start) if turns else (1, 0)
        if self._early:
            number, offset = self._early
        self.differs(Mismatch(number, offset, b"", data[:SHOWN], "is longer"), now)

    def _fall_short(self, cause: str, why: str, now: int) -> None:
        """An answer does not come whole."""
        turn = self.part.turns[self._at]
        size = turn.end - turn.start
        at = turn.start + self._got
        text = f"turn {turn.number}: {self._got} of {size} bytes of the answer (packet {turn.packet}): {why}"
        gone = cause == "closed early"
        if self.rules.on_mismatch == STOP or gone or not self._got:
            if self._got:
                self.mismatch = self.mismatch or Mismatch(
                    turn.number, self._got, self.part.theirs[at : min(at + SHOWN, turn.end)], b"", "is shorter"
                )
            self.fail(cause, text)
            return
        self.differs(
            Mismatch(turn.number, self._got, self.part.theirs[at : min(at + SHOWN, turn.end)], b"", "is shorter"), now
        )
        self._complete(turn, now)

    def differs(self, mismatch: Mismatch, now: int) -> None:
        """An answer is not as it should be."""
        first = self.mismatch is None
        self.mismatch = self.mismatch or mismatch
        if self.rules.on_mismatch == STOP:
            self.fail("mismatch", describe(mismatch))
            self._actions.append(("abort",))
        if first:
            self._tell("mismatch", 0, describe(mismatch))

    def _tell(self, kind: str, packet: int, text: str) -> None:
        self._events.append(Event(kind, packet, text))

    # --- what is said

    def _due(self) -> int | None:
        """When the next send, or our end, may go; None: it waits for the other side."""
        if not self.started:
            return None
        if self._sent < len(self.part.sends):
            send = self.part.sends[self._sent]
            if self._heard < send.after:
                return None
            return self._free + (send.delay if self.rules.recorded_pace else 0)
        return None if self.closed else self._end_due()

    def _end_due(self) -> int | None:
        end = self.part.end
        if not self.answered:
            if self._heard < end.after or not end.kind or end.after_fin:
                return None
            return self._free + (end.delay if self.rules.recorded_pace else 0)
        wait = end.after_fin or (not end.kind and self.part.their_end.kind)
        if wait and not self.peer_ended:
            return None if self.rules.strict else self.last + FAREWELL
        return self._free + (end.delay if self.rules.recorded_pace else 0)

    def _go_on(self, now: int) -> None:
        """Say what is due."""
        cuts: list[int] = []
        start = None
        while not self.outcome:
            due = self._due()
            if due is None or due > now:
                break
            if self._sent >= len(self.part.sends):
                self._flush(start, cuts)
                self._end(now)
                return
            send = self.part.sends[self._sent]
            start = send.start if start is None else start
            cuts.append(send.end - start)
            self._sent += 1
            self._free = max(due, self._free) if self.rules.recorded_pace else now
            self.last = now
        self._flush(start, cuts)

    def _flush(self, start: int | None, cuts: list[int]) -> None:
        if start is not None:
            self._actions.append(("send", self.part.mine[start : start + cuts[-1]], tuple(cuts)))

    def _end(self, now: int) -> None:
        self.closed, self.last = True, now
        end = self.part.end
        if end.after_fin and not self.peer_ended:
            self.note = "the other side kept the connection open; closed it"
        self._actions.append(("reset",) if end.kind == "rst" else ("close",))


def describe(mismatch: Mismatch) -> str:
    """A mismatch in words."""
    turn, offset, expected, got, what = mismatch
    shown = "".join(f", {name} {data.hex()}" for name, data in (("expected", expected), ("got", got)) if data)
    return f"turn {turn}, byte {offset}: the answer {what}{shown}"
