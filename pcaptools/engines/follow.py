"""The dialogue of one session as lines of text or hex, in the order in which it was heard.

::

    --> 13:00:01.123456 packet 4
    GET / HTTP/1.1
    Host: example.org

    <-- 13:00:01.130000 packet 6
    HTTP/1.1 200 OK
    --- missing: 1460 bytes from offset 213 on

A turn begins where the other side begins to speak, and after a pause. Nothing of the network reaches the terminal as it
is: text is read as UTF-8, and what cannot be printed, or is no UTF-8, is written `\\xNN` or `\\uNNNN`.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from typing import Any

from pcaptools.engines.streams import Piece

FORMS = ("text", "hex")
ARROWS = ("-->", "<--")
PAUSE = 1_000_000_000
"""ns; after it the time is told again."""
LONGEST = 4096
"""Characters of a line; a longer one is folded."""
WIDTH = 16


def printable(text: str) -> str:
    """Text that does nothing to a terminal, but for line ends and tabs, which stay."""
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or c.isprintable() else _escaped(ord(c)) for c in text)


def _escaped(number: int) -> str:
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def hex_lines(data: Any, offset: int) -> Iterator[str]:
    """`00000000  47 45 54 20 ...  GET ...`; offset: of the first byte."""
    for at in range(0, len(data), WIDTH):
        part = bytes(data[at : at + WIDTH])
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        yield f"{offset + at:08x}  {part.hex(' '):{3 * WIDTH}} {shown}"


class Follow:
    """Takes the pieces of a session's streams; `finish` ends the last line.

    out: is given lines, without their ends. form: one of `FORMS`. clock: a time (ns) in words.
    """

    def __init__(self, out: Callable[[str], object], clock: Callable[[int], str], form: str = "text") -> None:
        self._out, self._clock, self._hex = out, clock, form == "hex"
        utf8 = codecs.getincrementaldecoder("utf-8")
        self._decoders = (utf8("backslashreplace"), utf8("backslashreplace"))
        self._line = ""
        self._turn = (-1, 0)

    def __call__(self, way: int, piece: Piece) -> None:
        """The next piece of a stream."""
        start, size, data, time, packet = piece
        if self._turn[0] != way or time - self._turn[1] >= PAUSE:
            self._begin(way, time, packet)
        self._turn = (way, time)
        if data is None:
            self._flush(way)
            what = "1 byte" if size == 1 else f"{size} bytes"
            self._out(f"--- missing: {what} from offset {start} on")
        elif self._hex:
            for line in hex_lines(data, start):
                self._out(line)
        else:
            self._text(self._decoders[way].decode(data))

    def finish(self) -> None:
        """No more comes."""
        if self._turn[0] >= 0:
            self._flush(self._turn[0])

    def _begin(self, way: int, time: int, packet: int) -> None:
        if self._turn[0] >= 0:
            self._flush(self._turn[0])
            self._out("")
        self._out(f"{ARROWS[way]} {self._clock(time)} packet {packet}")

    def _flush(self, way: int) -> None:
        """End the line, and a character that is not whole."""
        self._text(self._decoders[way].decode(b"", final=True))
        if self._line:
            self._out(self._line)
            self._line = ""

    def _text(self, text: str) -> None:
        *lines, rest = printable(text.replace("\r\n", "\n")).split("\n")
        for line in lines:
            self._fold(self._line + line)
            self._line = ""
        self._line += rest
        if len(self._line) > LONGEST:
            self._fold(self._line)
            self._line = ""

    def _fold(self, line: str) -> None:
        self._out(line[:LONGEST])
        for at in range(LONGEST, len(line), LONGEST):
            self._out(line[at : at + LONGEST])
