"""HTTP/1 of a connection: requests, responses, which belongs to which, how long they took.

The messages are found by http_stream.py. Which of the two sides asks they tell themselves, ports do not count.
Responses answer requests in order. Where a gap may have hidden a message, that order says nothing: then a response
belongs to the last request in front of it, by packet numbers, and requests before that stay without one.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any

from pcaptools.engines.http_messages import Message, Wanted
from pcaptools.engines.http_stream import Side
from pcaptools.engines.streams import Budget, Piece

MOST_PENDING = 1000
"""Requests of a connection without a response yet, and the other way round; the oldest are reported as they are."""
MOST_INTERIM = 100
PORTS = frozenset({80, 81, 591, 1900, 2869, 3128, 5985, 8000, 8008, 8080, 8081, 8088, 8888, 11371})
"""Where nothing but HTTP is to be expected."""
WAIT = 1_000_000_000
"""A response whose request was not seen is reported so long (ns) after its end."""

DEFAULT = Wanted()


def parse_mode(text: str) -> Wanted | None:
    """`tcp`: None. `http[:request headers[:response headers]]`: names with commas between them, `%` all; `Host` always.

    Raises ValueError."""
    mode, *fields = text.split(":")
    if mode == "tcp" and not fields:
        return None
    if mode != "http" or len(fields) > 2:
        raise ValueError(f"'{text}' is neither tcp nor http[:REQUEST-HEADERS[:RESPONSE-HEADERS]]")
    request, response = (_names(field) for field in [*fields, "", ""][:2])
    return Wanted(None if request is None else request | {"host"}, response)


def _names(text: str) -> frozenset[str] | None:
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9a-z-]+", name):
            raise ValueError(f"'{name}' is no name of a header field")
    return None if "%" in names else frozenset(names)


class Exchange:
    """A request and its response; either may be None: not in the capture. interim: responses before the final one (100,
    103). upgraded: what the connection is from here on, where it is no longer HTTP/1."""

    __slots__ = ("alone", "interim", "request", "response", "upgraded")

    def __init__(self, request: Message | None = None, response: Message | None = None) -> None:
        self.request, self.response = request, response
        self.interim: list[Message] = []
        self.upgraded = ""
        self.alone = False
        """No request comes any more for this response."""

    @property
    def first_byte(self) -> int | None:
        """ns from the last byte of the request (from its first, when it was answered before it was complete) to the
        first one of the response."""
        if not self.request or not self.response:
            return None
        since = self.response.begin - self.request.end
        return since if since >= 0 else self.response.begin - self.request.begin

    @property
    def total(self) -> int | None:
        """ns from the first byte of the request to the last one of the response."""
        return self.response.end - self.request.begin if self.request and self.response else None

    def figures(self) -> dict[str, Any]:
        """For JSON; times in ns."""
        return {
            "request": self.request.figures() if self.request else None,
            "response": self.response.figures() if self.response else None,
            "interim": [message.status for message in self.interim],
            "first_byte_ns": self.first_byte,
            "total_ns": self.total,
            "upgraded": self.upgraded or None,
        }


class Http:
    """HTTP of one connection. Hand it the pieces of both streams, in the order in which they come; every exchange is
    told once to `done`, when it is over."""

    def __init__(
        self, done: Callable[[Exchange], object], wanted: Wanted = DEFAULT, *, started: bool = True,
        loose: bool = False, room: Budget | None = None,
    ) -> None:  # fmt: skip
        """started: the streams begin with the connection. loose: its ports are those of HTTP, so that what is nearly a
        request is taken for one. room: how many exchanges of all connections may be kept; those that `done` was told of
        are its own to give back."""
        self._done = done
        self._started = started
        self._room = room or Budget(1 << 62)
        self._sides = (Side(0, self, wanted, loose), Side(1, self, wanted, loose))
        self._asked: deque[Exchange] = deque()
        self._orphans: deque[Exchange] = deque()
        self._interim: list[Message] = []
        self._doubt = [not started, not started]
        self.exchanges = 0

    @property
    def known(self) -> bool:
        """Whether there was any HTTP."""
        return self._sides[0].known or self._sides[1].known

    @property
    def hopeless(self) -> bool:
        """Whether this is something else: no more needs to be looked at."""
        if self.known:
            return all(side.raw for side in self._sides)
        return self._started and any(side.strange for side in self._sides)

    def take(self, way: int, piece: Piece) -> None:
        """The next piece of a stream; those that go back are left out."""
        self._sides[way].take(piece)

    def finish(self) -> None:
        """Both streams have ended."""
        for side in self._sides:
            side.finish()
        self._release(self._asked, 0)
        self._release(self._orphans, 0)

    def _release(self, waiting: deque[Exchange], most: int) -> None:
        while len(waiting) > most:
            self._tell(waiting.popleft())

    def _tell(self, exchange: Exchange) -> None:
        self.exchanges += 1
        self._done(exchange)

    # What the sides tell.

    def doubtful(self, way: int) -> None:
        """Messages may have been missed."""
        self._doubt[way] = True

    def began(self, message: Message) -> Exchange | None:
        """The head of a message is there. Returns the exchange that it is of, None for an interim response."""
        return self._response(message) if message.status else self._request(message)

    def _request(self, message: Message) -> Exchange:
        orphans = self._orphans
        if self._doubt[message.way]:
            while orphans and orphans[0].response.packet < message.packet:  # type: ignore[union-attr]
                self._leave(orphans.popleft())
        if orphans:
            exchange = orphans.popleft()
            exchange.request = message
            return exchange
        exchange = self._new(message)
        self._asked.append(exchange)
        self._release(self._asked, 1 if self._room.used > self._room.limit else MOST_PENDING)
        return exchange

    def _new(self, request: Message | None = None) -> Exchange:
        self._room.used += 1
        return Exchange(request)

    def _response(self, message: Message) -> Exchange | None:
        if message.status < 200 and message.status != 101:
            interim = self._asked[0].interim if self._asked else self._interim
            if len(interim) < MOST_INTERIM:
                interim.append(message)
            return None
        exchange = self._asking(message) or self._new()
        exchange.response = message
        if not exchange.request:
            exchange.interim, self._interim = self._interim, []
            self._orphans.append(exchange)
            while len(self._orphans) > (1 if self._room.used > self._room.limit else MOST_PENDING):
                self._leave(self._orphans.popleft())
        return exchange

    def _leave(self, orphan: Exchange) -> None:
        """No request comes for a response any more."""
        orphan.alone = True
        if orphan.response and orphan.response.over:
            self._tell(orphan)

    def _asking(self, response: Message) -> Exchange | None:
        """The exchange whose request a response answers."""
        asked, way = self._asked, response.way
        if self._doubt[way]:
            self._doubt[way] = False
            while len(asked) > 1 and asked[1].request.packet < response.packet:  # type: ignore[union-attr]
                self._tell(asked.popleft())
        if not asked:
            return None
        if self._doubt[1 - way]:
            if asked[0].request.packet > response.packet:  # type: ignore[union-attr]
                return None
            self._doubt[1 - way] = len(asked) > 1
        return asked.popleft()

    def ended(self, exchange: Exchange, message: Message) -> None:
        """A message of an exchange is over."""
        request, response = exchange.request, exchange.response
        if response is None:
            return  # it waits among those that asked
        if exchange.alone or (request and request.over and response.over):
            self._tell(exchange)
        self._forget(message.end)

    def _forget(self, time: int) -> None:
        """Responses that have waited for too long."""
        orphans = self._orphans
        while orphans and orphans[0].response.over and orphans[0].response.end + WAIT < time:  # type: ignore[union-attr]
            self._tell(orphans.popleft())

    def upgraded(self) -> None:
        """The rest of both streams is not HTTP."""
        for side in self._sides:
            side.let_go()
