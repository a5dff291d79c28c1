"""HTTP/1 in two streams: every framing, pairing, gaps, hostile bytes."""

import random

import pytest

from pcaptools.engines.http import MOST_PENDING, Exchange, Http, parse_mode
from pcaptools.engines.http_messages import Wanted
from pcaptools.engines.http_stream import MOST_HEAD, MOST_START
from pcaptools.engines.streams import Piece

EVERYTHING = Wanted(None, None)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Talk:
    """A connection: each part is a piece; an int is a gap of so many bytes. Part k comes at k ms in packet k + 1."""

    def __init__(self, *, started: bool = True, wanted: Wanted = EVERYTHING) -> None:
        self.found: list[Exchange] = []
        self.http = Http(self.found.append, wanted, started=started)
        self.at = [0, 0]
        self.parts = 0

    def say(self, way: int, *parts: bytes | int) -> "Talk":
        for part in parts:
            size = part if isinstance(part, int) else len(part)
            if size:
                data = None if isinstance(part, int) else memoryview(part)
                self.http.take(way, Piece(self.at[way], size, data, self.parts * 1_000_000, self.parts + 1))
            self.at[way] += size
            self.parts += 1
        return self

    def end(self) -> list[Exchange]:
        self.http.finish()
        return self.found


def told(exchanges: list[Exchange]) -> list[tuple]:
    """(method and target, status, body sizes), None for what is missing."""
    return [
        (
            f"{one.request.method} {one.request.target}" if one.request else None,
            one.response.status if one.response else None,
            one.request.body_size if one.request else None,
            one.response.body_size if one.response else None,
        )
        for one in exchanges
    ]


def talk(requests: bytes, responses: bytes) -> list[tuple]:
    return told(Talk().say(0, requests).say(1, responses).end())


def test_a_request_and_its_response() -> None:
    both = (
        Talk().say(0, b"GET /a?b HTTP/1.1\r\nHo", b"st: x\r\nAccept:  y \r\n\r\n").say(1, OK[:20], OK[20:-2], OK[-2:])
    )
    (exchange,) = both.end()
    request, response = exchange.request, exchange.response
    assert (request.line, request.headers) == ("GET /a?b HTTP/1.1", [("Host", "x"), ("Accept", "y")])
    assert (request.packet, request.head_packet, request.head_size, request.begin) == (1, 2, 43, 0)
    assert (response.line, response.status, response.version) == ("HTTP/1.1 200 OK", 200, "1.1")
    assert (response.packet, response.head_packet, response.end_packet) == (3, 4, 5)
    assert (response.body_size, response.missing, response.complete) == (5, 0, True)
    assert (exchange.first_byte, exchange.total) == (1_000_000, 4_000_000)
    assert exchange.figures()["response"]["headers"] == {"Content-Length": "5"}


@pytest.mark.parametrize(
    ("response", "size"),
    [
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", 0),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 0),
        (CHUNKED + b"3\r\nabc\r\n0A;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\n", 13),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\nContent-Length: 2\r\n\r\n1\r\na\r\n0\r\n\r\n", 1),
        (b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc", 3),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 3),
        (b"HTTP/1.0 200\r\nContent-Length: 0\r\n\r\n", 0),
        (b"HTTP/1.1 200 \xe4\xf6\r\nContent-Length: 1\r\n\r\nx", 1),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: a\r\n\r\n" + OK, 5),
    ],
)  # fmt: skip
def test_where_a_response_ends(response: bytes, size: int) -> None:
    """Whole, byte by byte, and with another one behind it."""
    expected = [("GET /a", int(response[-50:].partition(b"HTTP/1.")[2][2:5] or response[9:12]), 0, size)]
    if b"103 Early" in response:
        expected = [("GET /a", 200, 0, size)]
    assert talk(GET, response) == expected
    assert told(Talk().say(0, GET).say(1, *(response[k : k + 1] for k in range(len(response)))).end()) == expected
    assert talk(GET + GET, response + OK) == [*expected, ("GET /a", 200, 0, 5)]


def test_a_response_to_head_has_no_body() -> None:
    head = GET.replace(b"GET", b"HEAD")
    assert talk(head + GET, OK[:-5] + OK) == [("HEAD /a", 200, 0, 0), ("GET /a", 200, 0, 5)]
    alone = told(Talk().say(1, OK[:-5], OK).end())  # the requests were not captured
    assert alone == [(None, 200, None, 0), (None, 200, None, 5)]


def test_interim_responses_are_kept_beside() -> None:
    post = b"POST /p HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    both = Talk().say(0, post).say(1, b"HTTP/1.1 100 Continue\r\n\r\n").say(0, b"body").say(1, OK)
    (exchange,) = both.end()
    assert ([one.status for one in exchange.interim], exchange.request.body_size) == ([100], 4)
    assert exchange.first_byte == 1_000_000


def test_a_body_that_goes_on_to_the_end() -> None:
    (exchange,) = Talk().say(0, GET).say(1, b"HTTP/1.0 200 OK\r\n\r\n", b"GET / HTTP/1.1\r\n", 100, b"x").end()
    assert (exchange.response.body_size, exchange.response.missing, exchange.response.complete) == (117, 100, True)


@pytest.mark.parametrize(
    ("request_head", "response", "upgraded"),
    [
        (b"CONNECT x:443 HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 Established\r\nContent-Length: 3\r\n\r\n", "CONNECT"),
        (b"GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
         b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "websocket"),
    ],
)  # fmt: skip
def test_what_follows_an_upgrade_is_not_http(request_head: bytes, response: bytes, upgraded: str) -> None:
    both = Talk().say(0, request_head).say(1, response + OK).say(0, GET).say(1, OK)
    (exchange,) = both.end()
    assert exchange.upgraded == upgraded
    assert both.http.hopeless
    refused = response.replace(b"200", b"407").replace(b"101", b"200")
    refused = refused.replace(b"Content-Length: 3\r\n", b"").replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n")
    both = Talk().say(0, request_head).say(1, refused).say(0, GET).say(1, OK)
    assert len(both.end()) == 2
    assert not both.http.hopeless


def test_requests_go_in_a_pipeline() -> None:
    requests = b"".join(b"POST /%d HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (k, k, b"x" * k) for k in range(20))
    responses = b"".join(
        b"HTTP/1.1 %d OK\r\nContent-Length: %d\r\n\r\n%s" % (200 + k, k, b"y" * k) for k in range(20) if k != 4
    )
    responses = responses.replace(b"HTTP/1.1 205", b"HTTP/1.1 204 OK\r\n\r\nHTTP/1.1 205")
    expected = [(f"POST /{k}", 200 + k, k, 0 if k == 4 else k) for k in range(20)]
    assert talk(requests, responses) == expected
    draw = random.Random(3)
    for _ in range(50):
        both, at = Talk(), [0, 0]
        while at != [len(requests), len(responses)]:
            way = 1 if at[0] == len(requests) or (at[1] < at[0] * len(responses) // len(requests) - 200) else 0
            text = responses if way else requests
            size = draw.randrange(1, 90)
            both.say(way, text[at[way] : at[way] + size])
            at[way] = min(at[way] + size, len(text))
        assert told(both.end()) == expected


def test_what_is_never_answered_or_never_asked_is_reported() -> None:
    assert talk(GET + GET, OK) == [("GET /a", 200, 0, 5), ("GET /a", None, 0, None)]
    assert talk(b"", OK + OK) == [(None, 200, None, 5)] * 2
    (exchange,) = Talk().say(0, GET).say(1, OK[:-1]).end()
    assert not exchange.response.complete
    assert exchange.response.problem == "ends before its body does"
    (exchange,) = Talk().say(0, GET[:-2]).end()
    assert (exchange.request.line, exchange.request.problem) == ("GET /a HTTP/1.1", "ends within its head")
    assert exchange.request.headers == [("Host", "x")]


# ---- gaps -----------------------------------------------------------------------------------------------------------


def test_a_gap_within_a_body_of_known_length_is_passed() -> None:
    parts = (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nabc", 10, b"defghij" + OK)
    first, second = Talk().say(0, GET, GET).say(1, *parts).end()
    assert (first.response.body_size, first.response.missing, first.response.complete) == (20, 10, True)
    assert second.response.complete
    whole = Talk().say(0, GET, GET).say(1, b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n", 20, OK).end()
    assert [one.response.complete for one in whole] == [True, True]


def test_a_gap_within_a_chunk_is_passed() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n"
    (exchange,) = Talk().say(0, GET).say(1, chunked + b"abc", 10, b"defghij\r\n0\r\n\r\n").end()
    assert (exchange.response.body_size, exchange.response.missing, exchange.response.complete) == (20, 10, True)
    first, second = Talk().say(0, GET, GET).say(1, chunked + b"abc", 17, b"\r\n0\r\n\r\n" + OK).end()
    assert (first.response.complete, first.response.missing, second.response.status) == (True, 17, 200)
    first, second = Talk().say(0, GET, GET).say(1, chunked + b"abc", 18, b"\n0\r\n\r\n", OK).end()
    assert (first.response.problem, second.response.status) == ("cut by a gap", 200)


def test_after_a_gap_the_next_message_is_found() -> None:
    both = Talk().say(0, GET[:-8], 6, b"\r\n" + GET).say(1, OK + OK)
    first, second = both.end()
    assert (first.request.line, first.request.problem) == ("GET /a HTTP/1.1", "head cut by a gap")
    assert (second.request.line, second.request.problem) == ("GET /a HTTP/1.1", "")
    # Amid a body that says nothing of the kind:
    post = b"POST /p HTTP/1.1\r\nContent-Length: 40\r\n\r\nabc"
    found = Talk().say(0, post, 50, b"more of something\r\nGET /z HTTP/1.1\r\n\r\n").say(1, OK + OK).end()
    assert told(found) == [("POST /p", 200, 40, 5), ("GET /z", 200, 0, 5)]
    assert found[0].request.missing == 37


def test_a_capture_that_begins_amid_a_connection() -> None:
    both = Talk(started=False).say(1, b"the rest of a body\n", OK).say(0, b"=1&c=2").say(0, GET).say(1, OK)
    assert told(both.end()) == [(None, 200, None, 5), ("GET /a", 200, 0, 5)]
    assert not both.http.hopeless


def test_a_response_in_a_gap_leaves_its_request_without_one() -> None:
    requests = [GET.replace(b"/a", b"/%d" % k) for k in range(4)]
    both = Talk().say(0, requests[0]).say(1, OK).say(0, requests[1]).say(1, len(OK)).say(0, requests[2])
    both.say(1, OK).say(0, requests[3]).say(1, OK)
    assert sorted(told(both.end())) == [
        ("GET /0", 200, 0, 5), ("GET /1", None, 0, None), ("GET /2", 200, 0, 5), ("GET /3", 200, 0, 5),
    ]  # fmt: skip


def test_a_request_in_a_gap_leaves_its_response_without_one() -> None:
    requests = [GET.replace(b"/a", b"/%d" % k) for k in range(3)]
    both = Talk().say(0, requests[0]).say(1, OK).say(0, len(GET)).say(1, OK).say(0, requests[2]).say(1, OK)
    assert told(both.end()) == [("GET /0", 200, 0, 5), (None, 200, None, 5), ("GET /2", 200, 0, 5)]


def test_a_request_that_is_put_together_only_after_its_response() -> None:
    """Behind a hole that takes time to be given up."""
    parts = ((0, 7, GET), (1, 3, OK), (1, 9, OK), (0, 4, GET.replace(b"/a", b"/b")))
    for gap, expected in ((0, ["/a", "/b"]), (40, [None, "/b"])):
        found: list[Exchange] = []
        http, at = Http(found.append, EVERYTHING), [0, 0]
        for way, packet, part in parts[1:] if gap else parts:
            if gap and way == 0:
                http.take(0, Piece(0, gap, None, 0, packet))
                at[0] = gap
            half = len(part) - 2
            http.take(way, Piece(at[way], half, memoryview(part)[:half], 0, packet))
            http.take(way, Piece(at[way] + half, 2, memoryview(part)[half:], 0, packet))
            at[way] += len(part)
        http.finish()
        assert [one.request.target if one.request else None for one in found] == expected
        assert all(one.response.complete for one in found)


def test_pieces_that_go_back_are_left_out() -> None:
    both = Talk().say(0, GET)
    both.http.take(0, Piece(0, 3, b"PUT", 0, 1))
    assert told(both.say(1, OK).end()) == [("GET /a", 200, 0, 5)]


# ---- what is not HTTP -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "client",
    [
        b"\x16\x03\x01\0\x05\x01\0\0\1\0", b"SSH-2.0-OpenSSH_9.2\r\n", b"EHLO host\r\n", b"GET /a\r\n", b"\0" * 9,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"OPTIONS sip:a SIP/2.0\r\n\r\n", b"GET / HTTP/1.1 x\r\n", b"x" * 99,
        b"G\xc3T / HTTP/1.1\r\n",
    ],
)  # fmt: skip
def test_what_is_not_http_is_known_soon(client: bytes) -> None:
    both = Talk().say(0, client)
    assert both.http.hopeless
    assert not both.http.known
    assert both.end() == []


def test_a_method_that_nobody_knows_and_fields_that_are_none() -> None:
    request = b"BREW /pot HTTP/1.1\r\nHost: x\r\nno colon\r\nA: b\r\n\r\n"
    both = Talk().say(0, request).say(0, GET).say(1, OK + OK)
    first, second = both.end()
    assert (first.request.method, first.request.headers) == ("BREW", [("Host", "x"), ("A", "b")])
    assert first.request.problem.startswith("header fields: ")
    assert (first.response.status, second.response.status) == (200, 200)


def test_limits() -> None:
    long = b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * MOST_HEAD
    (exchange,) = Talk().say(0, *(long[k : k + 1000] for k in range(0, len(long), 1000))).end()
    assert exchange.request.problem == f"head longer than {MOST_HEAD} bytes"
    assert Talk().say(0, b"GET /" + b"a" * MOST_START).end() == []
    both = Talk()
    for _ in range(MOST_PENDING + 10):
        both.say(0, GET)
    assert len(both.found) == 10
    assert len(both.end()) == MOST_PENDING + 10
    for rest in (b"1" * 5000, b"0\r\n" + b"A: b\r\n" * MOST_HEAD, b"0\r\n" + b"a" * 5000, b"xyz\r\n", b"1\r\nabc\r\n"):
        (exchange,) = Talk().say(0, GET).say(1, CHUNKED + rest).end()
        assert exchange.response.problem
    for length in (b"-1", b"1x", b"9" * 20, b"3, 4", b"+3"):
        (exchange,) = Talk().say(0, GET).say(1, b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n\r\nabc").end()
        assert exchange.response.problem


def test_garbage_never_hurts() -> None:
    draw = random.Random(5)
    words = [
        GET, OK, b"POST / HTTP/1.1\r\nContent-Length: 7\r\n\r\n", CHUNKED, b"5\r\nhello\r\n", b"0\r\n\r\n", b"\r\n",
        b"\n", b"HTTP/1.", b"HEAD / HTTP/1.0\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\n\r\n", b"\0\xff",
        b"HTTP/1.1 100 Continue\r\n\r\n", b"Content-Length: 99999999999\r\n",
        b"HTTP/1.1 101 x\r\nUpgrade: h2c\r\n\r\n",
    ]  # fmt: skip
    for _ in range(3000):
        both = Talk(started=draw.random() < 0.8)
        for _ in range(draw.randrange(1, 25)):
            word = draw.choice(words) if draw.random() < 0.9 else draw.randbytes(draw.randrange(40))
            if draw.random() < 0.2:
                word = word[draw.randrange(len(word) + 1) :]
            both.say(draw.randrange(2), word if draw.random() < 0.9 else draw.randrange(1, 60))
        for one in both.end():
            assert one.request or one.response
            assert one.figures()
            for message in (one.request, one.response):
                assert message is None or (message.over and (message.complete or message.problem))
                assert message is None or message.missing <= message.body_size


# ---- -m -------------------------------------------------------------------------------------------------------------


def test_the_mode() -> None:
    assert parse_mode("tcp") is None
    assert parse_mode("http") == (frozenset({"host"}), frozenset())
    assert parse_mode("http:User-Agent,X-Y: content-type ") == ({"host", "user-agent", "x-y"}, {"content-type"})
    assert parse_mode("http:%:%") == (None, None)
    assert parse_mode("http::Server") == ({"host"}, {"server"})
    for wrong in ("udp", "http:a:b:c", "http:a b", "tcp:x", "http:é", ""):
        with pytest.raises(ValueError, match=r"is neither|is no name"):
            parse_mode(wrong)


def test_only_wanted_fields_are_kept() -> None:
    wanted = parse_mode("http:accept:content-length")
    request = b"GET / HTTP/1.1\r\nHost: x\r\nCookie: secret\r\nACCEPT: y\r\n\r\n"
    (exchange,) = Talk(wanted=wanted).say(0, request).say(1, OK).end()
    assert exchange.request.headers == [("Host", "x"), ("ACCEPT", "y")]
    assert exchange.request.header("accept") == "y"
    assert exchange.response.headers == [("Content-Length", "5")]
