"""TLS hellos in streams: the server's name, versions, the protocol within.

They are looked for where a segment may begin a handshake (also behind STARTTLS or CONNECT), in the first `REACH` bytes
of a stream, and put together from records and segments. RFC 8446 (TLS 1.3: 4.1.2, 4.1.3, 5.1), RFC 5246, RFC 6066
(server name), RFC 7301 (ALPN).
"""

from __future__ import annotations

import struct
from collections import namedtuple
from contextlib import suppress
from typing import Any

from pcaptools.engines.seek import REACH
from pcaptools.engines.streams import Piece

MOST_HELLO = 1 << 16

ClientHello = namedtuple("ClientHello", "server_name alpn versions ciphers packet time")
ServerHello = namedtuple("ServerHello", "version cipher alpn retry packet time")
"""versions: offered, best first as sent, version: chosen; numbers, see `version_name`. alpn: names. ciphers: how many
were offered; cipher: number of the one chosen, see `cipher_name`. retry: a HelloRetryRequest. packet: number of the
one that completed it; time: ns."""

_CHANGE, _HANDSHAKE = 20, 22
"""Types of records; a ServerHello may come behind a change of ciphers when it is the second (RFC 8446, D.4)."""
_CLIENT, _SERVER = 1, 2
_HELLOS = (b"", bytes([_CLIENT]), bytes([_SERVER]))
_SERVER_NAME, _ALPN, _VERSIONS = 0, 16, 43
_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
"""The random of a ServerHello that is a HelloRetryRequest (RFC 8446, 4.1.3)."""

_VERSION_NAMES = {0x0300: "SSL 3.0", 0x0301: "TLS 1.0", 0x0302: "TLS 1.1", 0x0303: "TLS 1.2", 0x0304: "TLS 1.3"}

_CIPHERS = {
    0x000A: "RSA_3DES_EDE_CBC_SHA", 0x0004: "RSA_RC4_128_MD5", 0x0005: "RSA_RC4_128_SHA",
    0x002F: "RSA_AES_128_CBC_SHA", 0x0035: "RSA_AES_256_CBC_SHA", 0x003C: "RSA_AES_128_CBC_SHA256",
    0x003D: "RSA_AES_256_CBC_SHA256", 0x009C: "RSA_AES_128_GCM_SHA256", 0x009D: "RSA_AES_256_GCM_SHA384",
    0x0033: "DHE_RSA_AES_128_CBC_SHA", 0x0039: "DHE_RSA_AES_256_CBC_SHA", 0x009E: "DHE_RSA_AES_128_GCM_SHA256",
    0x009F: "DHE_RSA_AES_256_GCM_SHA384", 0x1301: "AES_128_GCM_SHA256", 0x1302: "AES_256_GCM_SHA384",
    0x1303: "CHACHA20_POLY1305_SHA256", 0xC009: "ECDHE_ECDSA_AES_128_CBC_SHA", 0xC00A: "ECDHE_ECDSA_AES_256_CBC_SHA",
    0xC013: "ECDHE_RSA_AES_128_CBC_SHA", 0xC014: "ECDHE_RSA_AES_256_CBC_SHA",
    0xC023: "ECDHE_ECDSA_AES_128_CBC_SHA256", 0xC027: "ECDHE_RSA_AES_128_CBC_SHA256",
    0xC02B: "ECDHE_ECDSA_AES_128_GCM_SHA256", 0xC02C: "ECDHE_ECDSA_AES_256_GCM_SHA384",
    0xC02F: "ECDHE_RSA_AES_128_GCM_SHA256", 0xC030: "ECDHE_RSA_AES_256_GCM_SHA384",
    0xCCA8: "ECDHE_RSA_CHACHA20_POLY1305_SHA256", 0xCCA9: "ECDHE_ECDSA_CHACHA20_POLY1305_SHA256",
}  # fmt: skip
"""Names of cipher suites that are in use, without the "TLS_" in front and the "WITH_" within."""


def version_name(number: int) -> str:
    """`TLS 1.3`."""
    return _VERSION_NAMES.get(number, f"{number:#06x}")


def cipher_name(number: int) -> str:
    """Its name where it is common, else its number."""
    return _CIPHERS.get(number, f"{number:#06x}")


class _Cut(Exception):
    """A field is longer than what it is in."""


class _Fields:
    """Reads fields one after the other. Raises `_Cut`."""

    __slots__ = ("_at", "_data", "_end")

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._end = data, 0, len(data)

    def __bool__(self) -> bool:
        return self._at < self._end

    def take(self, size: int) -> bytes:
        start = self._at
        self._at += size
        if self._at > self._end:
            raise _Cut
        return self._data[start : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> _Fields:
        """What stands behind its own length, a number of `size` bytes."""
        return _Fields(self.take(self.number(size)))

    def rest(self) -> bytes:
        return self.take(self._end - self._at)


def _extensions(fields: _Fields) -> dict[int, _Fields]:
    """By number; the first of each counts. What is cut off is not there."""
    found: dict[int, _Fields] = {}
    with suppress(_Cut):
        fields = fields.vector(2)
        while fields:
            number = fields.number(2)
            found.setdefault(number, fields.vector(2))
    return found


def _protocols(extensions: dict[int, _Fields]) -> list[str]:
    """ALPN."""
    names: list[str] = []
    with suppress(KeyError, _Cut):
        listed = extensions[_ALPN].vector(2)
        while listed:
            names.append(listed.vector(1).rest().decode("latin-1"))
    return names


def _server_name(extensions: dict[int, _Fields]) -> str | None:
    with suppress(KeyError, _Cut):
        listed = extensions[_SERVER_NAME].vector(2)
        while listed:
            kind, name = listed.number(1), listed.vector(2)
            if kind == 0:
                return name.rest().decode("latin-1")
    return None


def read_hello(message: bytes, packet: int = 0, time: int = 0) -> ClientHello | ServerHello | None:
    """A handshake message, without the four bytes in front of it but for the first; None: it is no sound hello."""
    try:
        fields = _Fields(message)
        kind, version, random = fields.number(1), fields.number(2), fields.take(32)
        fields.vector(1)
        if kind == _CLIENT:
            return _client_hello(fields, version, packet, time)
        cipher, _ = fields.number(2), fields.number(1)
        extensions = _extensions(fields)
        with suppress(KeyError, _Cut):
            version = extensions[_VERSIONS].number(2)
        return ServerHello(version, cipher, _protocols(extensions), random == _RETRY, packet, time)
    except _Cut:
        return None


def _client_hello(fields: _Fields, version: int, packet: int, time: int) -> ClientHello:
    ciphers = len(fields.vector(2).rest()) // 2
    fields.vector(1)
    extensions = _extensions(fields)
    versions = [version]
    with suppress(KeyError, _Cut):
        offered = extensions[_VERSIONS].vector(1).rest()
        numbers = struct.unpack(f">{len(offered) // 2}H", offered[: len(offered) & ~1])
        versions = [number for number in numbers if number & 0x0F0F != 0x0A0A] or versions  # GREASE, RFC 8701
    return ClientHello(_server_name(extensions), _protocols(extensions), versions, ciphers, packet, time)


class Hellos:
    """Finds the hello of one stream. `hello`: it, or None; `over`: none comes any more."""

    __slots__ = ("_buffer", "_message", "_reach", "hello", "over")

    def __init__(self, reach: int = REACH) -> None:
        """reach: bytes of the stream in which a hello may begin."""
        self._reach = reach
        self._buffer = bytearray()
        self._message = bytearray()
        self.hello: ClientHello | ServerHello | None = None
        self.over = False

    @property
    def vain(self) -> bool:
        """Whether no hello came where one should have been."""
        return self.over and self.hello is None

    def take(self, piece: Piece) -> None:
        """The next piece of the stream; those that go back are to be left out."""
        data = piece.data
        if self.over:
            return
        if data is None:
            self._drop(piece.start)
        elif self._buffer or self._message or self._begins(data):
            self._buffer += data
            self._records(piece)
        elif piece.start + piece.size >= self._reach:
            self.over = True

    def _drop(self, start: int) -> None:
        """This was no hello: wait for another one."""
        self._buffer.clear()
        self._message.clear()
        self.over = start >= self._reach

    def _begins(self, data: Any) -> bool:
        """Whether a record with a handshake begins here, as far as that can be seen."""
        if data[0] == _CHANGE:
            return bytes(data[1:2]) in (b"", b"\3") and bytes(data[3:6]) in (b"", b"\0", b"\0\1", b"\0\1\1")
        return data[0] == _HANDSHAKE and bytes(data[1:2]) in (b"", b"\3") and bytes(data[5:6]) in _HELLOS

    def _records(self, piece: Piece) -> None:
        """Take whole records out of the buffer."""
        buffer, message = self._buffer, self._message
        while len(buffer) >= 5:
            size = buffer[3] << 8 | buffer[4]
            if buffer[0] not in (_CHANGE, _HANDSHAKE) or buffer[1] != 3 or not 0 < size <= 0x4800:
                self._drop(piece.start)
                return
            if len(buffer) < 5 + size:
                break
            if buffer[0] == _HANDSHAKE:
                message += buffer[5 : 5 + size]
            del buffer[: 5 + size]
            if self._complete(piece):
                return
        if len(buffer) + len(message) > MOST_HELLO:
            self._drop(piece.start)

    def _complete(self, piece: Piece) -> bool:
        """Whether that was all, good or bad."""
        message = self._message
        if len(message) < 4:
            return False
        size = int.from_bytes(message[1:4], "big")
        if message[0] not in (_CLIENT, _SERVER) or size > MOST_HELLO:
            self._drop(piece.start)
            return True
        if len(message) < 4 + size:
            return False
        found = read_hello(bytes(message[:1] + message[4 : 4 + size]), piece.packet, piece.time)
        self._drop(piece.start)
        if found is not None:
            self.hello = found
            self.over = not (isinstance(found, ServerHello) and found.retry)  # then comes another one
        return True
