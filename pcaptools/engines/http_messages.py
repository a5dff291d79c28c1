"""HTTP/1 messages: header fields, as httptools reads them, and where a body ends (RFC 9112, 6.3)."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, NamedTuple

MOST_FIELDS = 100
"""Header fields that are read of a head in which something is wrong."""


class Wanted(NamedTuple):
    """The header fields that are kept: names in lower case, None: all."""

    request: frozenset[str] | None = frozenset({"host"})
    response: frozenset[str] | None = frozenset()


class Message:
    """A request or a response. way: 0 from the client of the connection. begin, end: times (ns) of the first and the
    last byte that were seen; packet, head_packet, end_packet: numbers of those that brought the first byte, the end of
    the head, the last byte. head_size, body_size: bytes, the framing of chunks in neither; missing: of the body, not in
    the capture, and counted in its size. status: 0 in a request."""

    __slots__ = (
        "begin", "body_size", "complete", "end", "end_packet", "head_packet", "head_size", "headers", "line", "method",
        "missing", "over", "packet", "problem", "status", "target", "version", "way",
    )  # fmt: skip

    def __init__(self, way: int, time: int, packet: int, start: re.Match[bytes]) -> None:
        self.way, self.begin, self.end = way, time, time
        self.packet = self.head_packet = self.end_packet = packet
        self.line = start[0].rstrip(b"\r\n").decode("latin-1")
        self.version = (start["version"] or b"").decode()
        self.method = (start["method"] or b"").decode()
        self.target = (start["target"] or b"").decode("latin-1")
        self.status = int(start["status"] or 0)
        self.headers: list[tuple[str, str]] = []
        """Those that are wanted, as they were sent."""
        self.head_size = self.body_size = self.missing = 0
        self.over = self.complete = False
        """over: no more of it comes; complete: it is all there, as far as it was captured."""
        self.problem = ""
        """What is wrong with it, in words."""

    def header(self, name: str) -> str | None:
        """The value of a wanted header field."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        found: dict[str, Any] = {"line": self.line, "headers": dict(self.headers), "packet": self.packet}
        if self.status:
            found["status"] = self.status
        found |= {"head_bytes": self.head_size, "body_bytes": self.body_size, "complete": self.complete}
        if self.missing:
            found["missing_bytes"] = self.missing
        return found | ({"problem": self.problem} if self.problem else {})


class Fields:
    """Header fields, as httptools finds them: those that tell where a body ends, and those that are wanted."""

    __slots__ = ("_wanted", "codings", "lengths", "upgrades", "wanted")

    def __init__(self, wanted: frozenset[str] | None) -> None:
        """wanted: names in lower case, None: all."""
        self._wanted = wanted
        self.wanted: list[tuple[str, str]] = []
        self.codings: list[bytes] = []
        self.lengths: list[bytes] = []
        self.upgrades: list[bytes] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower == b"content-length":
            self.lengths += [length.strip() for length in value.split(b",")]
        elif lower == b"transfer-encoding":
            self.codings += [coding.strip() for coding in value.lower().split(b",")]
        elif lower == b"upgrade":
            self.upgrades.append(value.strip())
        wanted = self._wanted
        if wanted is None or (wanted and lower.decode("latin-1") in wanted):
            self.wanted.append((name.decode("latin-1"), value.decode("latin-1").strip()))

    def read(self, section: bytes) -> str:
        """Read a head that lacks its start line; returns what is wrong with it: then what can be read was read."""
        problem = _parse(self, section)
        if problem:
            self.__init__(self._wanted)  # type: ignore[misc]
            for line in section.split(b"\n", MOST_FIELDS)[:MOST_FIELDS]:
                if line.strip():
                    _parse(self, line.rstrip(b"\r") + b"\r\n\r\n")
        return problem


@cache
def _httptools() -> Any:
    import httptools

    return httptools


def _parse(found: Fields, section: bytes) -> str:
    """Read header fields; returns what is wrong. The start line was read before, more liberally than httptools does:
    any method, any reason. What was sent is looked at here, not acted on."""
    httptools = _httptools()
    parser = httptools.HttpRequestParser(found)
    parser.set_dangerous_leniencies(
        lenient_headers=True,
        lenient_keep_alive=True,
        lenient_optional_cr_before_lf=True,
        lenient_optional_lf_after_cr=True,
        lenient_transfer_encoding=True,
        lenient_chunked_length=True,
    )
    try:
        parser.feed_data(b"GET / HTTP/1.1\r\n" + section)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        return f"header fields: {str(error).lower() or 'not understood'}"
    return ""


CHUNKS, TO_END, UNKNOWN, RAW = -1, -2, -3, -4


def framing(message: Message, fields: Fields, method: str) -> int:
    """How many bytes the body has, or how it ends (RFC 9112, 6.3). method: of the request that a response answers."""
    status = message.status
    if status == 101 or (method == "CONNECT" and 200 <= status < 300):
        return RAW
    if 0 < status < 200 or status in (204, 304) or (status and method == "HEAD"):
        return 0
    if fields.codings and fields.codings[-1] not in (b"", b"identity"):
        return CHUNKS if fields.codings[-1] == b"chunked" else TO_END if status else UNKNOWN
    if fields.lengths:
        length = fields.lengths[0]
        sound = length.isdigit() and len(length) < 20 and fields.lengths.count(length) == len(fields.lengths)
        return int(length) if sound else UNKNOWN
    if message.problem:
        return UNKNOWN  # what was not read may have told
    return TO_END if status else 0
