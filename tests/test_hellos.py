"""TLS hellos and DNS messages in streams, against Python's own TLS and hostile bytes."""

import random
import ssl
import struct

import pytest

from pcaptools.engines.hellos import (
    MOST_HELLO,
    REACH,
    ClientHello,
    Hellos,
    ServerHello,
    cipher_name,
    read_hello,
    version_name,
)
from pcaptools.engines.questions import MOST_NAMES, Questions, domain_name, read_question, status_name, type_name
from pcaptools.engines.streams import Piece

RETRY = "cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c"


def said(reader, *parts: bytes | int):
    """Hand parts of a stream over; an int is a gap of so many bytes."""
    at = 0
    for number, part in enumerate(parts, 1):
        size = part if isinstance(part, int) else len(part)
        if size:
            reader.take(Piece(at, size, None if isinstance(part, int) else memoryview(part), number * 10, number))
        at += size
    return reader


def client_hello(name: str = "www.example.org", protocols=("h2", "http/1.1"), **versions) -> bytes:
    """What a client of OpenSSL says first."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(list(protocols))
    for key, value in versions.items():
        setattr(context, key, value)
    out = ssl.MemoryBIO()
    session = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return out.read()


def record(kind: int, body: bytes, size: int = 1 << 14) -> bytes:
    """A handshake message in records of so many bytes."""
    message = bytes([kind]) + len(body).to_bytes(3, "big") + body
    pieces = [message[k : k + size] for k in range(0, len(message), size)]
    return b"".join(struct.pack(">BHH", 22, 0x0303, len(piece)) + piece for piece in pieces)


def server_hello(version: int = 0x0303, cipher: int = 0x1301, extensions: bytes = b"", random_: str = "00" * 32):
    body = struct.pack(">H", version) + bytes.fromhex(random_) + b"\0" + struct.pack(">HB", cipher, 0)
    return body + struct.pack(">H", len(extensions)) + extensions


def extension(number: int, data: bytes) -> bytes:
    return struct.pack(">HH", number, len(data)) + data


# ---- TLS ------------------------------------------------------------------------------------------------------------


def test_what_openssl_says() -> None:
    data = client_hello()
    for parts in ((data,), (data[:7], data[7:]), [data[k : k + 1] for k in range(len(data))]):
        hello = said(Hellos(), *parts).hello
        assert isinstance(hello, ClientHello)
        assert (hello.server_name, hello.alpn) == ("www.example.org", ["h2", "http/1.1"])
        assert hello.versions[:2] == [0x0304, 0x0303]
        assert (hello.packet, hello.time) == (len(parts), 10 * len(parts))
        assert hello.ciphers > 3
    old = said(Hellos(), client_hello(maximum_version=ssl.TLSVersion.TLSv1_2)).hello
    assert old.versions == [0x0303]


def test_a_server_s_answer() -> None:
    new = server_hello(extensions=extension(43, b"\3\4"))
    hello = said(Hellos(), record(2, new)).hello
    assert hello == ServerHello(0x0304, 0x1301, [], False, 1, 10)
    old = server_hello(cipher=0xC02F, extensions=extension(16, b"\0\x03\x02h2"))
    assert said(Hellos(), record(2, old, 9)).hello == ServerHello(0x0303, 0xC02F, ["h2"], False, 1, 10)
    empty = server_hello(cipher=0xC02F, extensions=extension(43, b"") + extension(16, b"\0"))
    assert said(Hellos(), record(2, empty)).hello == ServerHello(0x0303, 0xC02F, [], False, 1, 10)
    assert said(Hellos(), record(2, old[:38])).hello == ServerHello(0x0303, 0xC02F, [], False, 1, 10)


def test_after_a_retry_the_second_hello_counts() -> None:
    first = record(2, server_hello(extensions=extension(43, b"\3\4"), random_=RETRY)) + b"\x14\3\3\0\1\1"
    second = record(2, server_hello(cipher=0x1302, extensions=extension(43, b"\3\4")))
    hello = said(Hellos(), first).hello
    assert hello.retry
    assert said(Hellos(), first, second).hello == ServerHello(0x0304, 0x1302, [], False, 2, 20)
    assert said(Hellos(), first[:-6], b"\x14\3\3\0\1\1" + second).hello.cipher == 0x1302


def test_a_hello_behind_other_things() -> None:
    for before in ((b"STARTTLS\r\n",), (b"EHLO x\r\n", b"\x16\3\1\0\5\1\0\0\1\0"), (b"\x16\3\1\0\x40\1\0", 99), (200,)):
        assert said(Hellos(), *before, client_hello()).hello.server_name == "www.example.org"
    reader = said(Hellos(), b"x" * REACH)
    assert reader.over
    assert reader.vain
    assert said(Hellos(), b"x" * REACH, client_hello()).hello is None


def test_a_hello_that_is_too_long_or_lies_is_none() -> None:
    for size in (MOST_HELLO + 1, 0xFFFFFF):
        endless = struct.pack(">BHHB", 22, 0x0301, 0x4000, 1) + size.to_bytes(3, "big") + b"\xff" * 0x3FFC
        reader = said(Hellos(), *[endless] * 8)
        assert len(reader._buffer) + len(reader._message) <= MOST_HELLO
        assert reader.hello is None
    for wrong in (
        b"\x16\3\1\0\0",
        b"\x16\3\1\xff\xff\1",
        record(1, b"\3\3"),
        record(1, b"\3\3" + bytes(33) + b"\xff" * 9),
        b"\x16",
        b"\x16\3",
    ):
        assert said(Hellos(), wrong).hello is None


def test_hostile_hellos_never_hurt() -> None:
    draw, data = random.Random(7), client_hello()
    for cut in range(len(data)):
        said(Hellos(), data[:cut])
        read_hello(data[5:6] + data[9:cut])
    for _ in range(2000):
        broken = bytearray(data)
        for _ in range(draw.randrange(1, 6)):
            broken[draw.randrange(5, len(broken))] = draw.randrange(256)
        said(Hellos(), bytes(broken[: draw.randrange(len(broken))]), bytes(broken))
        said(Hellos(), b"\x16\3\1" + draw.randbytes(draw.randrange(60)))


def test_names_of_numbers() -> None:
    assert (version_name(0x0304), version_name(0x7F1C)) == ("TLS 1.3", "0x7f1c")
    assert (cipher_name(0x1302), cipher_name(0xFFFF)) == ("AES_256_GCM_SHA384", "0xffff")
    context = ssl.create_default_context()
    by_id = {cipher["id"] & 0xFFFF: cipher["name"] for cipher in context.get_ciphers()}
    for number, name in by_id.items():
        if 0x1300 < number < 0x1304:
            assert name.removeprefix("TLS_") == cipher_name(number)


# ---- DNS ------------------------------------------------------------------------------------------------------------


def message(name: bytes = b"\3www\7example\0", kind: int = 28, flags: int = 0x0100, answers: int = 0) -> bytes:
    return struct.pack(">HHHHHH", 7, flags, 1, answers, 0, 0) + name + struct.pack(">HH", kind, 1)


def framed(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def test_questions_and_answers() -> None:
    asked, answered = framed(message()), framed(message(flags=0x8183, answers=2, name=b"\1a\0"))
    for parts in ((asked + answered,), (asked, answered), [bytes([byte]) for byte in asked + answered]):
        first, second = said(Questions(), *parts).found
        assert (first.name, first.type, first.response, first.id) == ("www.example", 28, False, 7)
        assert (second.name, second.response, second.status, second.answers) == ("a", True, 3, 2)
        assert second.packet == len(parts)
    assert (type_name(28), type_name(65280), status_name(3), status_name(99)) == (
        "AAAA",
        "TYPE65280",
        "NXDOMAIN",
        "RCODE99",
    )


def test_names_are_shown_safely_and_never_go_round() -> None:
    assert domain_name(b"\4\x1b.\\\xff\1b\0", 0) == (r"\027\046\092\255.b", 8)
    assert domain_name(b"\0", 0) == ("<Root>", 1)
    assert domain_name(b"\1x\0\1y\xc0\0z", 3) == ("y.x", 7)
    for wrong in (
        b"\xc0\0",
        b"\1a\xc0\0",
        b"\1a\xc0\5\0\0",
        b"\x40" + b"a" * 64,
        b"\5ab",
        b"",
        b"\1",
        b"\xc0",
        b"\x3f" + b"a" * 63,
    ):
        with pytest.raises(ValueError, match=r"name|label"):
            domain_name(wrong, 0)
    with pytest.raises(ValueError, match="label too long"):
        domain_name(b"\x3f" + (b"a" * 63 + b"\x3f") * 5, 0)


def test_a_gap_loses_messages_until_one_begins_with_a_segment() -> None:
    one = framed(message())
    assert [question.packet for question in said(Questions(), one, one[:9], 5, one[14:], one, one).found] == [1, 5, 6]
    reader = said(Questions(), b"\0\1x", b"GET / HTTP/1.1\r\n\r\n")
    assert reader.lost
    assert reader.found == []


def test_many_messages_are_counted() -> None:
    reader = said(Questions(), *[framed(message())] * (MOST_NAMES + 5))
    assert (len(reader.found), reader.more) == (MOST_NAMES, 5)


def test_hostile_messages_never_hurt() -> None:
    draw, data = random.Random(8), message(answers=1)
    for cut in range(len(data)):
        read_question(data[:cut])
    for _ in range(3000):
        broken = bytearray(data)
        for _ in range(draw.randrange(1, 5)):
            broken[draw.randrange(len(broken))] = draw.choice([0, 0xC0, 0xFF, draw.randrange(256)])
        read_question(bytes(broken))
        said(Questions(), draw.randbytes(draw.randrange(30)), framed(bytes(broken)))
