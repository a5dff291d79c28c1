"""Which flow is played when, and how each ended: shared by all ways to reach the host."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from pcaptools.engines.dialogue import Dialogue
from pcaptools.engines.exchange import Exchange
from pcaptools.engines.expect import Conversation
from pcaptools.engines.script import Script

SECOND = 1_000_000_000  # ns

AGAIN = ("mismatch", "no answer", "closed early", "not closed")
"""Causes after which a flow is tried again: its answers did not meet the expectation."""


class Job:
    """One play of a script. number: from 1, over all repetitions."""

    def __init__(self, number: int, script: Script, tries: int = 1) -> None:
        self.number, self.script, self.tries = number, script, tries


class Roster:
    """The plays to come, those under way (counted), and the results.

    rate: starts a second, 0 for no limit; tries: of one play in all. results: one dict per play, as printed by --json.
    """

    def __init__(self, scripts: Sequence[Script], *, repeat: int, concurrency: int, rate: float, tries: int) -> None:
        self.results: list[dict[str, Any]] = []
        self.total = len(scripts) * repeat
        self.playing = 0
        self._scripts = scripts
        self._again: deque[Job] = deque()
        self._concurrency, self._tries = concurrency, tries
        self._interval = round(SECOND / rate) if rate else 0
        self._next = 0
        self._due: int | None = None

    @property
    def finished(self) -> bool:
        """Whether every play has ended."""
        return len(self.results) >= self.total

    @property
    def waiting(self) -> bool:
        """Whether a play has still to be started."""
        return self._next < self.total or bool(self._again)

    def start(self, now: int) -> Job | None:
        """The next play, when one may begin."""
        if not self.waiting or self.playing >= self._concurrency:
            return None
        if self._interval:
            self._due = now if self._due is None else self._due
            if self._due > now:
                return None
            self._due += self._interval
        return self.take()

    def take(self, port: int | None = None) -> Job:
        """The next play, whether or not it is time: the next one of a server at this port, when there is one."""
        self.playing += 1
        job = next((job for job in self._again if port in (None, job.script.server[1])), None)
        while job is None and self._next < self.total:
            self._next += 1
            new = Job(self._next, self._scripts[(self._next - 1) % len(self._scripts)])
            self._again.append(new)
            job = new if port in (None, new.script.server[1]) else None
        job = job or self._again[0]
        self._again.remove(job)
        return job

    def give_back(self, job: Job) -> None:
        """It could not be started: it comes again first."""
        self.playing -= 1
        self._again.appendleft(job)

    def next_deadline(self) -> int | None:
        """When `start` may have something, as far as time decides."""
        waits = self._interval and self.waiting and self.playing < self._concurrency
        return self._due if waits else None

    def end(self, job: Job, play: Conversation | Exchange | Dialogue, **facts: Any) -> dict[str, Any] | None:
        """A play has ended. Returns its result; None when it is to be tried again."""
        self.playing -= 1
        result = {**_result(job, play), **facts}
        if result["cause"] in AGAIN and job.tries < self._tries:
            self._again.append(Job(job.number, job.script, job.tries + 1))
            return None
        self.results.append(result)
        return result

    def interrupted(self) -> int:
        """Plays that did not end."""
        return self.total - len(self.results)


def _result(job: Job, play: Conversation | Exchange | Dialogue) -> dict[str, Any]:
    dialogue = play if isinstance(play, Dialogue) else play.dialogue
    outcome, mismatch = dialogue.outcome, dialogue.mismatch
    connection = getattr(play, "connection", None)
    facts = connection or play
    packets = (0, 0) if isinstance(play, Dialogue) else (play.sent, play.received)
    script = job.script
    return {
        "flow": script.number,
        "capture": script.source,
        "play": job.number,
        "result": "ok" if outcome and outcome.ok else "failed",
        "cause": outcome.cause if outcome else "interrupted",
        "text": outcome.text if outcome else "",
        "note": dialogue.note,
        "turn": dialogue.turn,
        "turns": len(dialogue.part.turns),
        "tries": job.tries,
        "rtt_ns": getattr(facts, "rtt", 0) or None,
        "retransmissions": getattr(facts, "retransmitted", 0),
        "packets_scheduled": len(dialogue.part.sends),
        "packets_sent": packets[0],
        "packets_received": packets[1],
        "bytes_sent": sum(send.end - send.start for send in dialogue.part.sends[: dialogue.sends]),
        "bytes_received": dialogue.received_bytes,
        "mismatch": _mismatch(mismatch) if mismatch else None,
    }


def _mismatch(mismatch: Any) -> dict[str, Any]:
    return {
        "turn": mismatch.turn,
        "offset": mismatch.offset,
        "expected": mismatch.expected.hex(),
        "got": mismatch.got.hex(),
        "what": mismatch.what,
    }
