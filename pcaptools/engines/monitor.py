"""Watches TCP sessions and tells of them when they are over: what pcapsessions is, without input and output.

monitor = Monitor(plan, out)
for batch in source:
    monitor.feed(batch)
monitor.finish()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from pcaptools.core.batch import Batch
from pcaptools.core.pipeline import Account
from pcaptools.engines.sessions import Segment, Session, Tracker, segments
from pcaptools.engines.sessions_plan import FILE, Plan
from pcaptools.engines.sessions_report import Alike, Text, statistics
from pcaptools.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pcaptools.engines.contents import Contents, Reader, Taker
    from pcaptools.engines.follow import Follow
    from pcaptools.engines.sessions_report import Carried

Out = Callable[[str], object]
"""Takes a line."""

REASONS = {"not_tcp": "not TCP", "fragment": "later fragments", "truncated": "cut within the TCP header"}
"""Words for what packets were that are no segments."""


class Monitor:
    """The sessions of one run. tracker: the table, with its counts and totals."""

    def __init__(
        self,
        plan: Plan,
        out: Out,
        *,
        seed: int = 0,
        takers: Callable[[Session], Sequence[Taker]] | None = None,
        closed: Callable[[Session, Sequence[Segment]], object] | None = None,
    ) -> None:
        """takers: who gets the bytes of a session. closed: is told of every session that is over, and of its segments
        where the plan keeps them."""
        self.plan = plan
        self._others, self._closed = takers, closed
        self.tracker: Tracker = plan.tracker(seed)
        self._out = out
        alike = Alike(plan.alike, self.tracker if plan.chooses and plan.mode == "text" else None)
        self._text = Text(plan.layout, out, alike, plan.everything)
        self._tell = {"text": self._tell_text, "json": self._tell_json, "summary": self._tell_summary}.get(plan.mode)
        self._follow = self._make_follow() if plan.mode == "follow" else None
        self._missed = plan.numbers
        self._reader = self._make_reader() if plan.seek and not plan.heads else None
        self._ends: dict[int, tuple[str, str]] = {}
        self._start: int | None = None
        self._latest = self._told = 0

    def _make_follow(self) -> Follow:
        from pcaptools.engines.follow import Follow

        return Follow(self._out, self.plan.layout.clock.date, self.plan.form)

    def _make_reader(self) -> Reader:
        from pcaptools.engines.contents import Reader

        assert self.plan.seek
        return Reader(self.tracker, self.plan.seek, unwatch=self.plan.mode != "live", takers=self._takers)

    def _takers(self, number: int, slot: int) -> list[Taker]:
        """Who gets the bytes of a session."""
        found: list[Taker] = [self._follow] if self._follow and number == self.plan.follow else []
        if not self._others:
            return found
        try:
            session = Session.of(self.tracker.session(slot))
        except IndexError:
            return found
        return [*found, *self._others(session)] if session.id == number else found

    def feed(self, batch: Batch) -> None:
        """Take the next batch; tell of sessions that have ended."""
        period = batch.time_range()
        if period:
            self._start = period[0] if self._start is None else self._start
            self._latest = max(self._latest, period[1])
        self.tracker.feed(batch)
        if self.plan.heads and not self._reader and self.tracker.rows():  # DNS
            self._reader = self._make_reader()
        if self._reader:
            self._reader.feed(batch)
        if self.plan.source != FILE:
            self.tracker.expire(self._latest)
        ended: Iterable[tuple[Any, ...]] = self.tracker.ended()
        if self.plan.mode == "live":
            ended = list(ended)
            self._live(ended)
        self._over(ended)

    def expire(self, now: int) -> None:
        """Time has passed without a packet: it is `now` (ns)."""
        self.tracker.expire(now)
        self._latest = max(self._latest, now)
        self._over(self.tracker.ended())

    def finish(self) -> None:
        """No more comes: tell of all that is left. Raises UsageError."""
        self._over(self.tracker.finish())
        self._text.finish()
        if self._missed:
            count, missed = self.tracker.totals["sessions"], ", ".join(map(str, sorted(self._missed)))
            raise UsageError(f"there is no session {missed}: there are {count}, counted from 0")

    def tell_open(self) -> None:
        """Tell of the sessions that are still open, as they are now."""
        for row in self.tracker.sessions():
            session = Session.of(row)
            if session.close_reason == "open" and self._tell:
                self._tell(session, partial(self._contents, session, None), True)

    @property
    def is_due(self) -> bool:
        """Whether it is time for the statistics again; true once."""
        interval, now = self.plan.interval, self._latest
        if not interval or self._start is None:
            return False
        passed = (now - self._start) // interval
        due, self._told = passed > self._told, max(passed, self._told)
        return due

    def statistics(self) -> list[str]:
        """Figures of all that was seen so far, as lines."""
        period = (self._latest if self._start is None else self._start, self._latest)
        shown = self._text.shown if self.plan.mode == "text" else None
        return statistics(self.tracker, period, shown, self._text.hidden, self.plan.layout.clock)

    def balance(self, account: Account) -> None:
        """Book what the packets were."""
        counts = dict(self.tracker.counts)
        counts.pop("packets")
        account.packets_out += counts.pop("tcp")
        for reason, count in counts.items():
            account.drop(REASONS.get(reason, reason.replace("_", " ")), count)

    # --- sessions that are over

    def _over(self, rows: Iterable[tuple[Any, ...]]) -> None:
        for row in rows:
            number = row[0]
            contents = self._reader.close(number) if self._reader else None
            if self._follow and number == self.plan.follow:
                self._follow.finish()
            self._missed -= {number}
            self._ends.pop(number, None)
            if self._tell or self._closed:
                session = Session.of(row)
                self._tell_of(session, partial(self._contents, session, contents))

    def _contents(self, session: Session, found: Contents | None) -> Contents | None:
        """What a session carried. found: by the reader; else what its beginning says."""
        head = self.tracker.heads(session.slot) if self.plan.heads and not found else None
        if not head or not self.plan.seek:
            return found
        from pcaptools.engines.contents import read_head

        return read_head(self.plan.seek, session, head)

    def _tell_of(self, session: Session, contents: Carried) -> None:
        if self._tell:
            self._tell(session, contents, False)
        if self._closed:
            self._closed(session, self._rows(session) if session.id in self.plan.drawn else ())

    def _rows(self, session: Session) -> list[Segment]:
        return list(segments(self.tracker.kept(session.slot)))

    def _reasons(self, session: Session) -> list[str]:
        return [reason.words for reason in self.plan.triggers.reasons(session)]

    def _tell_text(self, session: Session, contents: Carried, asked: bool) -> None:
        self._text.session(session, lambda: self._rows(session), contents, asked)

    def _tell_json(self, session: Session, contents: Carried, asked: bool) -> None:
        import json

        from pcaptools.engines.sessions_json import session_figures

        self._out(json.dumps(session_figures(session, self._reasons(session), contents())))

    def _tell_summary(self, session: Session, contents: Carried, asked: bool) -> None:
        from pcaptools.engines.sessions_summary import summary_lines

        for line in summary_lines(session, self._reasons(session), self.plan.layout.clock):
            self._out(line)

    # --- segments as they come

    def _live(self, ended: Iterable[tuple[Any, ...]]) -> None:
        """Print the segments of the batch."""
        layout, start = self.plan.layout, self._start or 0
        over = {row[0]: _end_texts(row) for row in ended}
        for segment in segments(self.tracker.rows()):
            number = segment.session
            texts = self._ends.get(number) or over.get(number)
            if texts is None:
                texts = self._ends[number] = _end_texts(self.tracker.session(segment.slot))
            self._out(layout.live(segment, texts[0], texts[1], start))


def _end_texts(row: tuple[Any, ...]) -> tuple[str, str]:
    session = Session.of(row)
    return session.client_text, session.server_text
