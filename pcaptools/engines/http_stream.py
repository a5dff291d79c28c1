"""HTTP/1 messages in one stream: heads are collected and read, bodies are counted, not kept.

::

    between --start line--> head --+--> length --+--> between          lost --start line--> head
       ^                           +--> chunks --+                     raw: CONNECT, Upgrade, the rest is not HTTP
       |                           +--> to the end of the stream
       +------ no body ------------+

How long a body is, RFC 9112 says in 6.3. A gap within a body whose length is known is counted and passed. Any other
gap, and whatever is no HTTP, leads to `lost`: from there a message is found again by its start line, at the beginning
of a segment or, in a stream that has been HTTP before, of a line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

from pcaptools.engines.http_messages import CHUNKS, RAW, UNKNOWN, Fields, Message, Wanted, framing
from pcaptools.engines.streams import Piece

MOST_HEAD = 1 << 15
"""Bytes of a head, or of trailers; a longer one is not read."""
MOST_START = 1 << 14
"""Bytes of a request line or status line."""
MOST_LINE = 1 << 10
"""Bytes of the line that begins a chunk."""

_START = re.compile(
    rb"(?:(?!PRI )(?P<method>[!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}) (?P<target>[^\r\n]*?) ?|)"
    rb"HTTP/(?P<version>\d\.\d)(?(method)|(?: +(?P<status>\d{3})(?![^ \r\n])(?P<reason>[^\r\n]*)))[ \t]*\r?\n"
)
_METHODS = rb"""GET POST HEAD PUT DELETE OPTIONS TRACE CONNECT PATCH PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK
    SEARCH REPORT BIND REBIND UNBIND ACL MERGE LINK UNLINK UPDATE LABEL CHECKIN CHECKOUT UNCHECKOUT VERSION-CONTROL
    MKACTIVITY MKWORKSPACE MKCALENDAR BASELINE-CONTROL ORDERPATCH NOTIFY SUBSCRIBE UNSUBSCRIBE BCOPY BMOVE BDELETE
    BPROPFIND BPROPPATCH POLL PURGE SOURCE CCM_POST RPC_CONNECT RPC_IN_DATA RPC_OUT_DATA""".replace(b"\n", b" ")
"""Those of the registry of IANA, and others that are met."""
_KNOWN = rb"(?P<method>(?:" + b"|".join(_METHODS.split()) + rb")(?![^ \r\n]))"
_LOOSE = re.compile(
    _KNOWN + rb"(?![^\r\n]* (?!HTTP/)[A-Z]+/\d)(?: (?P<target>[^ \r\n]*)[^\r\n]*)?(?P<version>)(?P<status>)\r?\n"
)
"""What is meant as a request, where nothing but HTTP is to be expected: without a version or with half of one."""
_CUT = re.compile(
    _KNOWN + rb" (?P<target>[^\s]+)(?: [^\r\n]*)?\Z|HTTP/(?P<version>\d\.\d) +(?P<status>\d{3})(?: [^\r\n]*)?\r?\Z"
)
"""What is there of a start line in front of a gap."""
_BEGINS = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}(?:[ \r\n]|\Z)|HTTP/(?:\d|\Z)")
"""What may become a start line."""
_RESUME = re.compile(rb"\n(?:[A-Z]{3,20} [^\s]{1,8000} HTTP/1\.[01]|HTTP/1\.[01] \d{3}(?: [^\r\n]{0,200})?)\r?\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*)?\r?\n")
_HEAD_END = re.compile(rb"\n\r?\n")
_LIKELY = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&'*+.^_`|~-0123456789")
"""Bytes that a message can begin with (RFC 9110, 5.6.2)."""


class Exchanged(Protocol):
    """What knows of the request that a response answers; request: None, it was not seen."""

    request: Message | None
    upgraded: str


class Listener(Protocol):
    """Who is told of messages: http.Http."""

    def began(self, message: Message) -> Exchanged | None:
        """The head of a message is there. Returns what it is part of, None for an interim response."""

    def ended(self, exchange: Any, message: Message) -> None:
        """A message is over."""

    def upgraded(self) -> None:
        """The rest of both streams is not HTTP."""

    def doubtful(self, way: int) -> None:
        """Messages of this side may have been missed."""


class Side:
    """One stream: a machine whose state is the function that takes the next bytes and returns how many it took."""

    __slots__ = (
        "_after", "_buffer", "_exchange", "_first", "_left", "_listener", "_loose", "_message", "_position", "_start",
        "_state", "_wanted", "_way", "known", "strange",
    )  # fmt: skip

    def __init__(self, way: int, listener: Listener, wanted: Wanted, loose: bool = False) -> None:
        """loose: nothing but HTTP is to be expected, so that what is nearly HTTP is taken for it."""
        self._way, self._listener = way, listener
        self._wanted, self._loose = wanted, loose
        self._position = self._left = 0
        self._buffer = bytearray()
        self._first = (0, 0)
        self._start: re.Match[bytes] | None = None
        self._message: Message | None = None
        self._exchange: Exchanged | None = None
        self.known = self.strange = False
        """known: there was a message; strange: the stream began with something else."""
        self._state: Callable[[Side, Any, int, int], int] = Side._between
        self._after = self._state

    @property
    def raw(self) -> bool:
        """Whether nothing is looked for any more."""
        return self._state is Side._raw

    def take(self, piece: Piece) -> None:
        start, size, data, time, packet = piece
        if start < self._position:
            return
        self._position = start + size
        if data is None:
            self._gap(size, time, packet)
            return
        taken = self._state(self, data, time, packet)
        while taken < size:
            taken += self._state(self, data[taken:], time, packet)

    def finish(self) -> None:
        """The stream has ended; so have messages that go on to its end."""
        if self._state is Side._unsure:
            self._state = self._after
        if self._state is Side._to_end:
            self._complete()
        elif self._message is not None:
            self._fail("ends before its body does")
        elif self._started():
            self._broken_head("ends within its head")

    def let_go(self) -> None:
        """What comes from here on is not HTTP."""
        self._buffer.clear()
        self._start = None
        self._state = Side._raw

    def _gap(self, size: int, time: int, packet: int) -> None:
        if self._state is Side._raw:
            return
        if self._state is Side._unsure:
            self._state = self._after
        state, message = self._state, self._message
        if message and state in (Side._body, Side._chunk, Side._to_end):
            within = size if state is Side._to_end else min(size, self._left)
            message.body_size += within
            message.missing += within
            self._left -= within
            message.end, message.end_packet = time, packet
            if state is Side._body and not self._left:
                self._complete()
            if within == size:
                return
        if self._message:
            self._fail("cut by a gap")
        elif self._started():
            self._broken_head("head cut by a gap")
        self._lose()

    def _lose(self) -> None:
        """Where messages begin is not known; some may have been missed."""
        self._buffer.clear()
        self._start = None
        self._state = Side._lost
        self._listener.doubtful(self._way)

    # Heads.

    def _raw(self, data: Any, time: int, packet: int) -> int:
        return len(data)

    def _lost(self, data: Any, time: int, packet: int) -> int:
        """A message may begin with the segment, or with a line of it."""
        if data[0] in _LIKELY and _START.match(bytes(data[:MOST_START])):
            self._state = Side._between
            return 0
        found = _RESUME.search(bytes(data)) if self.known else None
        if found is None:
            return len(data)
        self._state = Side._between
        return found.start() + 1

    def _between(self, data: Any, time: int, packet: int) -> int:
        """No message yet; line ends in front of one are none (RFC 9112, 2.2)."""
        at, size = 0, len(data)
        while at < size and data[at] in b"\r\n":
            at += 1
        if at < size and data[at] in _LIKELY:
            self._first = (time, packet)
            self._state = Side._head
        elif at < size:
            return self._no_head(size)
        return at

    def _no_head(self, size: int) -> int:
        self.strange |= not self.known
        self._lose()
        return size

    def _head(self, data: Any, time: int, packet: int) -> int:
        """Collect a head up to the empty line that ends it."""
        buffer = self._buffer
        had = len(buffer)
        buffer += data[: MOST_HEAD - had]
        if self._start is None and not self._start_line(had):
            return len(data)
        end = _HEAD_END.search(buffer, max(had - 2, 0))
        if end:
            self._begin(bytes(buffer[: end.end()]), time, packet)
            return end.end() - had
        if len(buffer) >= MOST_HEAD:
            self._broken_head(f"head longer than {MOST_HEAD} bytes")
            self._lose()
        return len(data)

    def _started(self) -> bool:
        """Whether a message has begun, as far as it is there."""
        self._start = self._start or _CUT.match(bytes(self._buffer[:MOST_START]))
        return self._start is not None

    def _start_line(self, had: int) -> bool:
        """Whether the buffer begins with a whole start line. If it cannot, the state is another."""
        buffer = self._buffer
        if b"\n" in buffer[had:]:
            line = bytes(buffer[:MOST_START])
            self._start = _START.match(line) or (_LOOSE.match(line) if self._loose else None)
            if self._start is None:
                self._no_head(0)
        elif len(buffer) >= MOST_START or not _BEGINS.match(buffer):
            self._no_head(0)
        return self._start is not None

    def _made(self, section: bytes, packet: int) -> tuple[Message, Fields]:
        """The message whose start line was read."""
        assert self._start
        message = Message(self._way, *self._first, self._start)
        message.head_packet = packet
        fields = Fields(self._wanted.response if message.status else self._wanted.request)
        message.problem = fields.read(section)
        message.headers = fields.wanted
        self._start = None
        self._buffer.clear()
        self.known = True
        return message, fields

    def _broken_head(self, problem: str) -> None:
        """Report a message of whose head only a part is there."""
        assert self._start
        lines = bytes(self._buffer[self._start.end() :]).rpartition(b"\n")
        message, _ = self._made(lines[0] + lines[1] + b"\r\n", self._first[1])
        message.head_size = self._left = 0
        message.problem = problem
        self._exchange = self._listener.began(message)
        self._message = message
        self._fail("")

    def _begin(self, head: bytes, time: int, packet: int) -> None:
        """A head is complete: what comes behind it?"""
        assert self._start
        message, fields = self._made(head[self._start.end() :], packet)
        message.head_size = len(head)
        message.end, message.end_packet = time, packet
        self._message = message
        self._exchange = exchange = self._listener.began(message)
        request = exchange.request if exchange else None
        length = framing(message, fields, request.method if request else "")
        if length == RAW and exchange:
            upgrade = b", ".join(fields.upgrades).decode("latin-1")
            exchange.upgraded = upgrade or (request.method if request else "") or "unknown"
            self._complete()
            self._listener.upgraded()
        elif length == UNKNOWN:
            self._fail("length of the body not understood")
        elif length == 0 or exchange is None:
            self._complete()
        else:
            self._left = max(length, 0)
            self._after = Side._body if length > 0 else Side._chunk_size if length == CHUNKS else Side._to_end
            self._state = Side._unsure if message.status and request is None else self._after

    def _complete(self) -> None:
        message = self._message
        assert message
        message.complete = True
        self._state = Side._between
        self._over(message)

    def _fail(self, problem: str) -> None:
        """A message of which the rest cannot be told."""
        message = self._message
        assert message
        message.problem = message.problem or problem
        self._over(message)
        self._lose()

    def _over(self, message: Message) -> None:
        exchange = self._exchange
        self._message = self._exchange = None
        self._buffer.clear()
        message.over = True
        if exchange:
            self._listener.ended(exchange, message)

    # Bodies.

    def _unsure(self, data: Any, time: int, packet: int) -> int:
        """Nobody knows whether the request was HEAD: then the next response comes where the body would."""
        if bytes(data[:7]) == b"HTTP/1.":
            self._complete()
        else:
            self._state = self._after
        return 0

    def _count(self, size: int, time: int, packet: int) -> int:
        message = self._message
        assert message
        message.body_size += size
        message.end, message.end_packet = time, packet
        return size

    def _to_end(self, data: Any, time: int, packet: int) -> int:
        return self._count(len(data), time, packet)

    def _body(self, data: Any, time: int, packet: int) -> int:
        size = self._count(min(len(data), self._left), time, packet)
        self._left -= size
        if not self._left:
            self._complete()
        return size

    def _chunk(self, data: Any, time: int, packet: int) -> int:
        size = self._count(min(len(data), self._left), time, packet)
        self._left -= size
        if not self._left:
            self._state = Side._chunk_end
        return size

    def _line(self, data: Any) -> int:
        """Collect a line; how much of the data is of it."""
        had = len(self._buffer)
        self._buffer += data[: MOST_LINE - had]
        end = self._buffer.find(b"\n", had)
        if end >= 0:
            del self._buffer[end + 1 :]
        return max(len(self._buffer) - had, 1)

    def _chunk_size(self, data: Any, time: int, packet: int) -> int:
        taken = self._line(data)
        if self._buffer.endswith(b"\n"):
            digits = _CHUNK.match(self._buffer)
            if digits is None:
                self._fail("size of a chunk not understood")
                return len(data)
            self._left = int(digits[1], 16)
            self._buffer.clear()
            self._count(0, time, packet)
            self._state = Side._chunk if self._left else Side._trailers
        elif len(self._buffer) >= MOST_LINE:
            self._fail("size of a chunk not understood")
        return taken

    def _chunk_end(self, data: Any, time: int, packet: int) -> int:
        """The line end behind a chunk."""
        taken = self._line(data)
        if self._buffer in (b"\r\n", b"\n"):
            self._buffer.clear()
            self._state = Side._chunk_size
        elif self._buffer != b"\r":
            self._fail("a chunk is longer than it says")
            return len(data)
        return taken

    def _trailers(self, data: Any, time: int, packet: int) -> int:
        """Fields behind the last chunk, of which `_left` (negative) bytes were seen; an empty line ends them."""
        taken = self._line(data)
        if self._buffer in (b"\r\n", b"\n"):
            self._count(0, time, packet)
            self._complete()
        elif self._buffer.endswith(b"\n"):
            self._left -= len(self._buffer)
            self._buffer.clear()
        if -self._left >= MOST_HEAD or len(self._buffer) >= MOST_LINE:
            self._fail("trailers too long")
        return taken
