"""What sessions carry: their streams put together, and HTTP, TLS and DNS found in them.

    reader = Reader(tracker, Seek(http=Wanted(), tls=True, dns=True))
    for batch in source:
        tracker.feed(batch)
        reader.feed(batch)                       # before the batch is filled again
        for session in tracker.ended():
            contents = reader.close(session.id)  # None: no payload
            contents.exchanges, contents.hellos, contents.questions ...

A row of Python work per segment: for when somebody asks for contents, not for every run.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from pcaptools.core.batch import Batch
from pcaptools.engines.flows import address
from pcaptools.engines.hellos import Hellos
from pcaptools.engines.http import PORTS as HTTP_PORTS
from pcaptools.engines.http import Exchange, Http
from pcaptools.engines.questions import Question, Questions
from pcaptools.engines.seek import Seek
from pcaptools.engines.sessions import ACK, FIN, ROW_FORMAT, RST, STARTS, SYN, Segment, Session, Tracker
from pcaptools.engines.streams import Budget, Duplex, Piece

_FIELDS = (
    "packet", "time", "session", "slot", "seq", "ack", "rel_seq", "rel_ack", "payload", "captured", "at", "flags",
    "direction",
)  # fmt: skip
"""Of a row, what is needed here."""

_START, _CLIENT_PORT, _SERVER_PORT = map(Session._fields.index, ("start", "client_port", "server_port"))
"""Of what the tracker tells of a session; making a `Session` of it takes longer than all the rest."""

DNS_PORT = 53
MOST_EXCHANGES = 100_000
"""Exchanges that the sessions in the table keep, together."""
SWEEP = 4096
"""So many more sessions than last time, and those are looked for that the tracker dropped without telling."""


def _narrow(row_format: str, names: Sequence[str]) -> struct.Struct:
    """Of a row, only the fields of these names."""
    order, fields = row_format[0], iter(Segment._fields)
    codes = ""
    for count, code in re.findall(r"(\d*)([a-zA-Z?])", row_format[1:]):
        for one in [count + code] if code in "sx" else int(count or 1) * code:
            wanted = code != "x" and next(fields) in names
            codes += one if wanted else f"{struct.calcsize(order + one)}x"
    return struct.Struct(order + codes)


_KIND = ACK | SYN | FIN | RST
_ROW = _narrow(ROW_FORMAT, _FIELDS)

Taker = Callable[[int, Piece], object]


def stream_names(session: Session) -> tuple[str, str]:
    """Names for the streams of a session, from the client and from the server: `00012-10.0.0.1_40000-10.0.0.2_80`."""
    client = f"{address(session.client)}_{session.client_port}".replace(":", "-")
    server = f"{address(session.server)}_{session.server_port}".replace(":", "-")
    return f"{session.id:05d}-{client}-{server}", f"{session.id:05d}-{server}-{client}"


def read_head(seek: Seek, session: Session, head: Sequence[tuple[Any, ...]]) -> Contents | None:
    """What the first payload of a session says. head: of `Tracker.heads`. None: there is none."""
    if not head:
        return None
    started = STARTS[session.start] != "middle"
    contents = Contents(seek, Budget(), started=started, ports=(session.client_port, session.server_port))
    _, _, way, seq, ack, rel_seq, rel_ack, flags, *_ = head[0]
    contents.begin(way, seq - rel_seq, ack - rel_ack if flags & ACK else None)
    for packet, time, way, seq, ack, _, _, flags, payload, data in head:
        contents.streams.segment(way, seq, ack, flags, data, payload, time, packet)
    contents.finish()
    return contents


class Contents:
    """What one session carries.

    exchanges: of HTTP, as they ended; exchanges_dropped: how many more there were. hellos: of the client and of the
    server, see engines/hellos.py, None: none was seen. questions: DNS messages in the order in which they came.
    """

    __slots__ = (
        "_at", "_exchange", "_hellos", "_http", "_questions", "_room", "_takers", "exchanges", "exchanges_dropped",
        "look", "number", "seen", "silent", "slot", "started", "streams",
    )  # fmt: skip

    def __init__(
        self, seek: Seek, budget: Budget, *, started: bool = True, ports: Sequence[int] = (),
        takers: Sequence[Taker] = (), exchange: Callable[[Contents, Exchange], object] | None = None, number: int = 0,
        slot: int = 0, room: Budget | None = None,
    ) -> None:  # fmt: skip
        """started: seen from the SYN on. takers: get every piece too, also those that go back. exchange: is told of
        exchanges as they end, instead of `exchanges`. number, slot: of the session. room: how many exchanges all
        contents keep; more are dropped."""
        self.exchanges: list[Exchange] = []
        self.exchanges_dropped = 0
        self._exchange, self._room = exchange, room or Budget(MOST_EXCHANGES)
        loose = not HTTP_PORTS.isdisjoint(ports)
        self._http = Http(self._told, seek.http, started=started, loose=loose, room=self._room) if seek.http else None
        self._hellos = (Hellos(seek.reach), Hellos(seek.reach)) if seek.tls else None
        self._questions = (Questions(), Questions()) if seek.dns and DNS_PORT in ports else None
        self._takers = takers
        self._at = [0, 0]
        self.number, self.slot, self.started = number, slot, started
        self.seen, self.look, self.silent = 0, min(256, seek.reach), False
        """Bytes of payload, at how many to look whether more is of use, and whether it is not."""
        self.streams = Duplex(self._take, seek.policy, budget)

    @property
    def hellos(self) -> tuple[Any, Any]:
        return tuple(one.hello for one in self._hellos) if self._hellos else (None, None)  # type: ignore[return-value]

    @property
    def questions(self) -> list[Question]:
        found = [one for side in self._questions or () for one in side.found]
        return sorted(found, key=lambda one: (one.packet, one.response))

    @property
    def is_http(self) -> bool:
        """Whether there was any HTTP."""
        return self._http is not None and self._http.known

    @property
    def exhausted(self) -> bool:
        """Whether nothing that is looked for can come any more."""
        return (
            not self._takers
            and (not self._http or self._http.hopeless)
            and (not self._hellos or all(one.over for one in self._hellos) or any(one.vain for one in self._hellos))
            and not self._questions
        )

    def begin(self, way: int, seq: int, ack: int | None) -> None:
        """The numbers of the SYNs of that end and of the other one, if it is known."""
        self.streams.begin(way, seq, self.started)
        if ack is not None:
            self.streams.begin(1 - way, ack, self.started)

    def finish(self) -> None:
        """The session is over."""
        self.streams.finish()
        if self._http:
            self._http.finish()
        self._room.used -= len(self.exchanges)

    def _told(self, exchange: Exchange) -> None:
        if self._exchange:
            self._exchange(self, exchange)
        elif self._room.used <= self._room.limit:
            self.exchanges.append(exchange)
            return
        else:
            self.exchanges_dropped += 1
        self._room.used -= 1

    def _take(self, way: int, piece: Piece) -> None:
        for taker in self._takers:
            taker(way, piece)
        if piece.start < self._at[way]:
            return  # it goes back
        self._at[way] = piece.start + piece.size
        if self._http:
            self._http.take(way, piece)
        if self._hellos and not self._hellos[way].over:
            self._hellos[way].take(piece)
        if self._questions:
            self._questions[way].take(piece)


class _Nothing:
    """Stands for the contents of a session that has nothing to tell. slot: of the session."""

    __slots__ = ("slot",)
    silent = True

    def __init__(self, slot: int) -> None:
        self.slot = slot


class Reader:
    """The contents of all sessions of a tracker (which makes rows, `rows=True`)."""

    def __init__(
        self, tracker: Tracker, seek: Seek, *, budget: Budget | None = None, unwatch: bool = False,
        takers: Callable[[int, int], Sequence[Taker]] | None = None,
        exchange: Callable[[Contents, Exchange], object] | None = None,
    ) -> None:  # fmt: skip
        """unwatch: let the tracker make no more rows of sessions that have nothing to tell; for when nobody else needs
        them. takers(number, slot): who else gets the pieces of a session, asked when it carries its first
        bytes. exchange: see `Contents`."""
        self._tracker, self._seek, self._exchange = tracker, seek, exchange
        self._unwatch, self._takers = unwatch, takers
        self.budget = budget or Budget()
        self._room = Budget(MOST_EXCHANGES)
        self._sweep_at = SWEEP
        self._open: dict[int, Contents | _Nothing] = {}

    def feed(self, batch: Batch) -> None:
        """Read the segments of the batch that the tracker was fed last. Call it before `Tracker.ended`."""
        table, data = self._open, batch.view()
        for row in _ROW.iter_unpack(self._tracker.rows()):
            packet, time, session, slot, seq, ack, rel_seq, rel_ack, payload, captured, at, flags, way = row
            contents = table.get(session)
            if contents is None:
                if not payload:
                    continue
                contents = table[session] = self._begin(session, slot)
                contents.begin(way, seq - rel_seq, ack - rel_ack if flags & ACK else None)
            if contents.silent or isinstance(contents, _Nothing):
                continue
            if not payload and flags & _KIND == ACK:
                contents.streams.acknowledge(way, ack, time, packet)
                continue
            contents.streams.segment(way, seq, ack, flags, data[at : at + captured], payload, time, packet)
            contents.seen += payload
            if contents.seen >= contents.look:
                self._look(contents)
        if len(table) >= self._sweep_at:
            self._sweep()

    def close(self, session: int) -> Contents | None:
        """A session is over: its contents; None: it carried nothing."""
        contents = self._open.pop(session, None)
        if not isinstance(contents, Contents):
            return None
        contents.finish()
        return contents

    def _begin(self, number: int, slot: int) -> Contents:
        started, ports = False, (0, 0)
        with suppress(IndexError):  # it ended, and its slot is another's
            row = self._tracker.session(slot)
            if row[0] == number:
                started = STARTS[row[_START]] != "middle"
                ports = (row[_CLIENT_PORT], row[_SERVER_PORT])
        takers = self._takers(number, slot) if self._takers else ()
        return Contents(
            self._seek, self.budget, started=started, ports=ports, takers=takers, exchange=self._exchange,
            number=number, slot=slot, room=self._room,
        )  # fmt: skip

    def _look(self, contents: Contents) -> None:
        """Leave a session alone that has no more to tell."""
        contents.look *= 2
        if contents.exhausted:
            contents.silent = True
            if not (contents.is_http or any(contents.hellos) or contents.questions):
                contents.finish()
                self._open[contents.number] = _Nothing(contents.slot)
            if self._unwatch:
                self._tracker.watch(contents.slot, False)

    def _sweep(self) -> None:
        """Forget sessions that the tracker dropped without a word, because they were not chosen."""
        for number, contents in list(self._open.items()):
            try:
                gone = self._tracker.session(contents.slot)[0] != number
            except IndexError:
                gone = True
            if gone:
                self.close(number)
        self._sweep_at = 2 * len(self._open) + SWEEP
