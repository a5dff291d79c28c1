"""Many flows at once through the kernel's own TCP or UDP: what happened in, what to do out. Expectations are on streams
only: the kernel sees to segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pcaptools.engines.dialogue import FAREWELL, Dialogue, Event, Outcome, Rules
from pcaptools.engines.exchange import Exchange
from pcaptools.engines.roster import Job, Roster
from pcaptools.engines.script import Script


class Sockets(Protocol):
    """What the kernel offers: net/kernel.py."""

    def connect(self, address: bytes, port: int, source: int | None = None) -> int: ...
    def send(self, number: int, data: bytes) -> None: ...
    def shut(self, number: int) -> None: ...
    def drop(self, number: int, reset: bool = False) -> None: ...


class _Play:
    __slots__ = ("began", "dialogue", "job", "play")

    def __init__(self, job: Job, play: Dialogue | Exchange, now: int) -> None:
        self.job, self.play, self.began = job, play, now
        self.dialogue = play if isinstance(play, Dialogue) else play.dialogue


class StreamPlayer:
    """As `play.Player`, over sockets: hand it what `happened`, call `step` for the rest."""

    def __init__(
        self,
        roster: Roster,
        sockets: Sockets,
        target: bytes,
        rules: Rules,
        *,
        udp: bool = False,
        dst_port: int | None = None,
        source: int | str | None = None,
        scripts: Sequence[Script] = (),
        on_event: Callable[[Job, Event], None] | None = None,
        on_result: Callable[[dict], None] | None = None,
    ) -> None:
        """source: our port: a number, "recorded", or None for any. scripts: what a server plays."""
        self.roster = roster
        self._sockets, self._target, self._rules, self._udp = sockets, target, rules, udp
        self._dst_port, self._source, self._scripts = dst_port, source, scripts
        self._plays: dict[int, _Play] = {}
        self._on_event, self._on_result = on_event, on_result

    @property
    def finished(self) -> bool:
        """Whether every play has ended."""
        return self.roster.finished

    def next_deadline(self) -> int | None:
        """When `step` wants to be called."""
        times = [self._deadline(play) for play in self._plays.values()]
        times.append(None if self._scripts else self.roster.next_deadline())
        return min((time for time in times if time is not None), default=None)

    def _deadline(self, play: _Play) -> int | None:
        if isinstance(play.play, Exchange):
            return play.play.next_deadline()
        due = play.dialogue.next_deadline()
        return min(due, play.dialogue.last + FAREWELL) if due is not None and play.dialogue.finished else due

    def step(self, now: int) -> None:
        """Start what may begin, and tell time."""
        while not self._scripts and (job := self.roster.start(now)):
            self._start(job, now)
        for number, play in list(self._plays.items()):
            due = self._deadline(play)
            if due is not None and due <= now:
                self._time(number, play, now)

    def _start(self, job: Job, now: int) -> None:
        script = job.script
        source = script.client[1] if self._source == "recorded" else self._source
        assert not isinstance(source, str)
        number = self._sockets.connect(self._target, self._dst_port or script.server[1], source)
        part = script.part("client")
        self._plays[number] = play = _Play(job, self._made(part), now)
        play.dialogue.last = now

    def _made(self, part: Any) -> Dialogue | Exchange:
        return Exchange(part, self._rules) if self._udp else Dialogue(part, self._rules._replace(strict=False))

    def happened(self, number: int, what: str, more: Any, now: int) -> None:
        """Something happened to a socket: see net/kernel.py."""
        play = self._plays.get(number)
        if play is None:
            play = self._accept(number, more, now) if what == "open" and self._scripts else None
            if play is None:
                self._sockets.drop(number, True)
                return
        dialogue = play.dialogue
        if what == "open":
            self._opened(play, now)
        elif what == "data" and isinstance(play.play, Exchange):
            play.play.receive(more, now)
        elif what == "data":
            self._choose(play, more, now)
            play.dialogue.received(more, True, now)
        elif what == "end":
            dialogue.ended(now)
        elif what == "failed":
            self._failed(dialogue, *more)
        self._go_on(number, play, now)

    def _opened(self, play: _Play, now: int) -> None:
        if isinstance(play.play, Exchange):
            play.play.started(now)
        else:
            play.dialogue.opened(now)

    def _accept(self, number: int, where: tuple, now: int) -> _Play | None:
        if not self.roster.waiting:
            return None
        job = self.roster.take(None if self._dst_port else where[2])
        play = self._plays[number] = _Play(job, self._made(job.script.part("server")), now)
        return play

    def _choose(self, play: _Play, data: bytes, now: int) -> None:
        """A server plays the script whose client began like this one."""
        dialogue = play.dialogue
        if not self._scripts or dialogue.received_bytes or dialogue.sends:
            return

        def alike(script: Script) -> int:
            wanted = script.part("server").theirs[: len(data)]
            return next((k for k, (a, b) in enumerate(zip(wanted, data, strict=False)) if a != b), len(wanted))

        there = [one for one in self._scripts if self._dst_port or one.server[1] == play.job.script.server[1]]
        best = max(there, key=lambda script: (alike(script), script is play.job.script))
        if best is not play.job.script:
            play.job.script = best
            play.play = play.dialogue = Dialogue(best.part("server"), dialogue.rules)
            play.dialogue.opened(now)

    def _failed(self, dialogue: Dialogue, cause: str, words: str) -> None:
        if cause == "closed early" and dialogue.may_be_reset:
            dialogue.outcome = dialogue.outcome or Outcome(True, "", "")
            return
        where = ""
        if dialogue.started:
            got = f"{dialogue.received_bytes} of {len(dialogue.part.theirs)} bytes"
            where = f" in turn {dialogue.turn} after {got}"
        dialogue.fail(cause, f"{cause}{where}: {words.lower()}")

    def _time(self, number: int, play: _Play, now: int) -> None:
        if isinstance(play.play, Exchange):
            play.play.timeout(now)
        elif not play.dialogue.started:
            play.dialogue.fail("no answer", f"no answer to packet 1 within {self._rules.timeout / 1e9:g} s")
        else:
            play.dialogue.timeout(now)
            if play.dialogue.finished and now >= play.dialogue.last + FAREWELL:
                play.dialogue.outcome = play.dialogue.outcome or Outcome(True, "", "")
        self._go_on(number, play, now)

    def _go_on(self, number: int, play: _Play, now: int) -> None:
        dialogue = play.dialogue
        reset = False
        if isinstance(play.play, Exchange):
            for data in play.play.datagrams_to_send():
                self._sockets.send(number, data)
        for action in dialogue.actions():
            if action[0] == "send":
                self._sockets.send(number, action[1])
            elif action[0] == "close":
                self._sockets.shut(number)
            else:
                reset = True
        awaited = dialogue.part.their_end.kind == "fin" and not dialogue.peer_ended and not reset
        if dialogue.finished and not dialogue.outcome and not awaited and not self._udp:
            dialogue.outcome = Outcome(True, "", "")
        if self._on_event:
            for event in play.play.events():
                self._on_event(play.job, event)
        if dialogue.outcome:
            self._sockets.drop(number, reset or not dialogue.outcome.ok)
            del self._plays[number]
            result = self.roster.end(play.job, play.play, port=None, client=None)
            if result and self._on_result:
                self._on_result(result)
