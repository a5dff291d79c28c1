"""DNS over TCP: what was asked and answered in a stream. RFC 1035 (4.1, 4.2.2), RFC 7766."""

from __future__ import annotations

import struct
from collections import namedtuple

from pcaptools.engines.streams import Piece

MOST_NAMES = 1000
"""Messages of a stream that are kept; more are counted."""

Question = namedtuple("Question", "name type response status answers id packet time")
"""A DNS message, by its first question: name, type as a number, status (RCODE) and number of answers of a response."""

_TYPES = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 35: "NAPTR",
    41: "OPT", 43: "DS", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 50: "NSEC3", 52: "TLSA", 64: "SVCB", 65: "HTTPS",
    251: "IXFR", 252: "AXFR", 255: "ANY", 257: "CAA",
}  # fmt: skip
_STATUSES = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")


def type_name(number: int) -> str:
    """`AAAA`; RFC 3597 names those without one."""
    return _TYPES.get(number, f"TYPE{number}")


def status_name(number: int) -> str:
    """`NXDOMAIN`."""
    return _STATUSES[number] if number < len(_STATUSES) else f"RCODE{number}"


def domain_name(message: bytes, at: int) -> tuple[str, int]:
    """A name in a message and the offset behind it. A name may go on elsewhere, but only further in front.

    Bytes that are no plain characters, and dots within a label, are written `\\ddd` (RFC 4343). Raises ValueError."""
    labels: list[str] = []
    behind, limit, size = 0, at, 0
    while True:
        if at >= len(message):
            raise ValueError("a name beyond the message")
        length = message[at]
        if length >= 0xC0:
            target = (length & 0x3F) << 8 | message[at + 1] if at + 1 < len(message) else limit
            if target >= limit:
                raise ValueError("a name that goes on where it should not")
            behind, at, limit = behind or at + 2, target, target
            continue
        size += length + 1
        if length > 63 or at + 1 + length > len(message) or size > 255:
            raise ValueError("a label too long")
        at += 1
        if not length:
            return ".".join(labels) or "<Root>", behind or at
        labels.append("".join(map(_shown, message[at : at + length])))
        at += length


def _shown(byte: int) -> str:
    return chr(byte) if 0x20 < byte < 0x7F and byte not in b".\\" else f"\\{byte:03d}"


def read_question(message: bytes, packet: int = 0, time: int = 0) -> Question | None:
    """A DNS message; None when it is not one with a question."""
    if len(message) < 12:
        return None
    number, flags, questions, answers = struct.unpack_from(">HHHH", message)
    try:
        name, at = domain_name(message, 12)
    except ValueError:
        return None
    if not questions or at + 4 > len(message):
        return None
    kind = message[at] << 8 | message[at + 1]
    response = bool(flags & 0x8000)
    return Question(name, kind, response, flags & 15 if response else 0, answers, number, packet, time)


class Questions:
    """The DNS messages of one stream: each behind its length in two bytes."""

    __slots__ = ("_buffer", "found", "lost", "more")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.found: list[Question] = []
        self.more = 0
        """How many were not kept."""
        self.lost = False
        """Behind a gap, or behind what is no DNS, nobody knows where messages begin."""

    def take(self, piece: Piece) -> None:
        """The next piece of the stream; those that go back are to be left out."""
        if piece.data is None:
            self._lose()
            return
        if self.lost and int.from_bytes(piece.data[:2], "big") == piece.size - 2:
            self.lost = False  # most segments carry one message
        if self.lost:
            return
        buffer = self._buffer
        buffer += piece.data
        at = 0
        while len(buffer) - at >= 2 and not self.lost:
            size = buffer[at] << 8 | buffer[at + 1]
            if len(buffer) - at - 2 < size:
                break
            self._message(bytes(buffer[at + 2 : at + 2 + size]), piece)
            at += 2 + size
        del buffer[:at]

    def _message(self, message: bytes, piece: Piece) -> None:
        question = read_question(message, piece.packet, piece.time)
        if question is None:
            if len(message) < 12:
                self._lose()
        elif len(self.found) < MOST_NAMES:
            self.found.append(question)
        else:
            self.more += 1

    def _lose(self) -> None:
        self.lost = True
        self._buffer.clear()
