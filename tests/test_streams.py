"""Streams put together from segments: the same bytes whatever the order, gaps exactly where bytes lack."""

import itertools
import random

import pytest

from pcaptools.core.wire import ACK, FIN, PSH, SYN
from pcaptools.engines.streams import BUDGET, GRACE, HELD, PATIENCE, POLICIES, Budget, Duplex, Piece, Stream

WRAP = 1 << 32


class Collected:
    """What a stream handed on, put where it says; None: not in the capture."""

    def __init__(self) -> None:
        self.bytes: dict[int, int | None] = {}
        self.end = 0

    def take(self, pieces) -> None:
        for piece in pieces:
            assert piece.size > 0
            assert piece.data is None or len(piece.data) == piece.size
            assert piece.start <= self.end, "handed on out of order"
            for k in range(piece.size):
                self.bytes[piece.start + k] = None if piece.data is None else piece.data[k]
            self.end = max(self.end, piece.start + piece.size)

    def text(self) -> str:
        return "".join("." if self.bytes[k] is None else chr(self.bytes[k]) for k in range(self.end))


def run(stream: Stream, segments, *, base=1000, snap=1 << 20, time=0) -> str:
    found = Collected()
    for start, text in segments:
        data = text.encode()
        found.take(stream.add((base + start) % WRAP, memoryview(data)[:snap], len(data), time, 1))
    found.take(stream.finish())
    return found.text()


def begun(policy: str = "first", base: int = 1000, budget: Budget | None = None) -> Stream:
    stream = Stream(policy, budget)
    stream.begin(base - 1)
    return stream


def test_in_order_is_handed_on_as_views() -> None:
    stream, data = begun(), b"hello"
    (piece,) = stream.add(1000, memoryview(data), 5, 7, 3)
    assert piece == Piece(0, 5, b"hello", 7, 3)
    assert piece.data.obj is data
    assert stream.finish() == []


@pytest.mark.parametrize("base", [1000, WRAP - 3, WRAP - 1, 0, 1 << 31])
def test_out_of_order_across_the_wrap(base: int) -> None:
    assert run(begun(base=base), [(5, "fghij"), (0, "abcde"), (10, "k")], base=base) == "abcdefghijk"


def test_the_first_or_the_last_counts_where_segments_overlap() -> None:
    overlap = [(0, "aaaa"), (2, "BBBB")]
    assert run(begun("first"), overlap) == "aaaaBB"
    assert run(begun("last"), overlap) == "aaBBBB"
    held = [(4, "aaaa"), (2, "BBBB"), (6, "CCCC"), (0, "zz")]
    assert run(begun("first"), held) == "zzBBaaaaCC"
    assert run(begun("last"), held) == "zzBBBBCCCC"
    covered = [(4, "bb"), (2, "CCCCCC"), (0, "ee")]
    assert run(begun("first"), covered) == "eeCCbbCC"
    assert run(begun("last"), covered) == "eeCCCCCC"


def test_bytes_count_more_than_their_absence() -> None:
    stream, found = begun(), Collected()
    found.take(stream.add(1004, b"ef", 4, 0, 1))  # snapped
    found.take(stream.add(1004, b"EFGH", 4, 0, 2))
    found.take(stream.add(1000, b"abcd", 4, 0, 3))
    found.take(stream.finish())
    assert found.text() == "abcdefGH"


def test_what_the_snap_length_cut_is_a_gap_at_once() -> None:
    stream = begun()
    assert stream.add(1000, b"abc", 10, 5, 1) == [Piece(0, 3, b"abc", 5, 1), Piece(3, 7, None, 5, 1)]
    assert stream.add(1010, b"", 4, 6, 2) == [Piece(10, 4, None, 6, 2)]
    assert (stream.position, stream.missing) == (14, 11)


def test_what_was_acknowledged_but_not_captured_is_a_gap() -> None:
    stream = begun()
    assert stream.add(1010, b"klm", 3, 0, 1) == []
    assert stream.acknowledged(1005, 1) == []
    assert stream.acknowledged(1013, 2) == []
    assert stream.acknowledged(1013, GRACE) == []  # the first one to pass where we are was at 1
    assert stream.acknowledged(1013, GRACE + 1) == [Piece(0, 10, None, 0, 1), Piece(10, 3, b"klm", 0, 1)]


def test_a_hole_that_is_filled_in_time_is_none() -> None:
    stream = begun()
    assert stream.add(1003, b"def", 3, 0, 1) == []
    assert stream.acknowledged(1006, 0) == []
    assert stream.add(1000, b"abc", 3, GRACE - 1, 2) == [Piece(0, 3, b"abc", GRACE - 1, 2), Piece(3, 3, b"def", 0, 1)]


def test_a_hole_is_given_up_by_the_capture_s_clock() -> None:
    stream = begun()
    assert stream.add(1003, b"def", 3, 0, 1) == []
    assert stream.flush(PATIENCE - 1) == []
    assert [piece.data for piece in stream.flush(PATIENCE)] == [None, b"def"]


def test_late_bytes_still_fill_their_gap() -> None:
    stream, found = begun(), Collected()
    for start, text, time in ((3, b"def", 0), (9, b"jkl", PATIENCE), (1, b"bcdEf", PATIENCE), (6, b"ghi", PATIENCE)):
        found.take(stream.add(1000 + start, text, len(text), time, 1))
    found.take(stream.finish())
    assert found.text() == ".bcdefghijkl"
    assert stream.missing == 1


def test_a_keep_alive_overwrites_nothing() -> None:
    for policy in POLICIES:
        assert run(begun(policy), [(0, "hello"), (4, "\0"), (5, "!")]) == "hello!"


def test_what_cannot_be_of_the_stream_is_left_out() -> None:
    stream = begun()
    assert not stream.add((1000 + (1 << 30) + 1) % WRAP, b"x", 1, 0, 1)
    assert (stream.wild, stream.waiting) == (1, False)
    assert stream.add(1000 - 50, b"x" * 50, 50, 0, 1) == []
    assert stream.early == 50
    assert run(stream, [(0, "ok")]) == "ok"


def test_a_stream_without_a_syn_begins_with_the_first_byte() -> None:
    assert run(Stream(), [(50, "abc"), (53, "def")]) == "abcdef"


def test_a_guessed_beginning_may_have_been_that_of_a_keep_alive() -> None:
    for sure, text in ((True, ".abc"), (False, "abc")):
        stream = Stream()
        stream.begin(999, sure=sure)
        assert run(stream, [(1, "abc")]) == text
    stream = Stream()
    stream.begin(999, sure=False)
    assert run(stream, [(2, "c"), (0, "ab"), (3, "d")]) == "abcd"


def test_the_end_is_known_from_the_fin_or_from_the_acknowledgement() -> None:
    stream = begun()
    stream.add(1000, b"abc", 3, 0, 1)
    stream.end(1003, 0)
    stream.acknowledged(1004, 1)
    assert stream.ended
    assert stream.finish() == []
    stream = begun()
    stream.add(1000, b"abc", 3, 0, 1)
    stream.acknowledged(1010, 4, 9)
    assert stream.finish() == [Piece(3, 7, None, 4, 9)]
    stream = begun()
    stream.end(1005, 6, 2)
    assert not stream.ended
    assert stream.add(1006, b"late", 4, 7, 3) == []  # behind the FIN: handed on all the same
    assert [piece[:2] for piece in stream.finish()] == [(0, 6), (6, 4)]


def test_memory_is_bounded_over_all_streams() -> None:
    budget = Budget(10_000)
    streams = [begun(budget=budget) for _ in range(8)]
    found = [Collected() for _ in streams]
    for k in range(200):
        for stream, taken in zip(streams, found, strict=True):
            taken.take(stream.add(1001 + 100 * k, b"x" * 99, 99, 0, k))
            assert budget.used <= budget.limit
    assert budget.exceeded
    assert budget.most <= budget.limit + 99 + HELD
    for stream, taken in zip(streams, found, strict=True):
        taken.take(stream.finish())
        assert taken.text() == ("." + "x" * 99) * 200
    assert budget.used == 0
    assert Budget().limit == BUDGET


def pieces_of(text: bytes, draw: random.Random) -> list[tuple[int, int]]:
    """The text in segments, some again, some overlapping, in any order."""
    cuts = sorted({0, len(text), *(draw.randrange(len(text) + 1) for _ in range(draw.randrange(12)))})
    segments = list(itertools.pairwise(cuts))
    for _ in range(draw.randrange(4)):
        low = draw.randrange(len(text))
        segments.append((low, draw.randrange(low, len(text)) + 1))
    if draw.random() < 0.8:
        draw.shuffle(segments)
    return segments


@pytest.mark.parametrize("policy", POLICIES)
def test_any_segments_in_any_order_are_the_same_bytes(policy: str) -> None:
    draw = random.Random(10)
    for _ in range(1500):
        text = "".join(draw.choices("abcdefgh", k=draw.randrange(1, 60))).encode()
        base = draw.choice([1000, WRAP - draw.randrange(70), 0, draw.randrange(WRAP)])
        budget = Budget()
        stream, found = begun(policy, base, budget), Collected()
        for low, high in pieces_of(text, draw):
            found.take(stream.add((base + low) % WRAP, text[low:high], high - low, 0, 1))
        assert (stream.waiting, budget.used, stream.missing) == (False, 0, 0)
        found.take(stream.finish())
        assert found.text() == text.decode()


@pytest.mark.parametrize("policy", POLICIES)
def test_gaps_are_exactly_where_bytes_lack(policy: str) -> None:
    draw = random.Random(11)
    for _ in range(1500):
        text = "".join(draw.choices("abcdefgh", k=draw.randrange(2, 60))).encode()
        stream, found, seen = begun(policy), Collected(), set()
        for low, high in pieces_of(text, draw):
            if draw.random() < 0.3:
                continue
            got = draw.randrange(high - low + 1) if draw.random() < 0.2 else high - low
            if low == stream.position - 1 and high == stream.position:
                continue  # a keep-alive, as far as anybody can tell
            seen |= set(range(low, low + got))
            found.take(stream.add(1000 + low, text[low : low + got], high - low, 0, 1))
        stream.end(1000 + len(text), 0)
        found.take(stream.finish())
        assert found.text() == "".join(chr(byte) if k in seen else "." for k, byte in enumerate(text))
        assert stream.missing == len(text) - len(seen)
        assert stream._budget.used == 0


def test_hostile_numbers_never_hurt() -> None:
    draw = random.Random(12)
    for _ in range(300):
        budget = Budget(draw.choice([500, 5000, BUDGET]))
        stream, found, base = Stream(draw.choice(POLICIES), budget), Collected(), draw.randrange(WRAP)
        time = 0
        for _ in range(60):
            near = draw.choice([base, draw.randrange(WRAP)]) + draw.randrange(-40, 40)
            time += draw.choice([0, 1, GRACE, PATIENCE])
            data, what = bytes(draw.randrange(9)), draw.random()
            if what < 0.7:
                pieces = stream.add(near % WRAP, data, len(data) + draw.choice([0, 0, 3]), time, 1)
            elif what < 0.9:
                pieces = stream.acknowledged(near % WRAP, time)
            else:
                pieces = stream.end(near % WRAP, time) or ()
            for piece in pieces:
                assert piece.size > 0
                assert piece.start <= found.end
                assert piece.start >= 0
                found.end = max(found.end, piece.start + piece.size)
            assert budget.used <= budget.limit
        stream.finish()
        assert budget.used == 0


def test_both_directions() -> None:
    taken = []
    both = Duplex(lambda way, piece: taken.append((way, piece.start, piece.data and bytes(piece.data))))
    both.segment(0, 99, 0, SYN, b"", 0, 0, 1)
    both.segment(1, 499, 100, SYN | ACK, b"", 0, 1, 2)
    both.segment(0, 103, 500, ACK, b"def", 3, 2, 3)
    both.segment(1, 500, 106, ACK | PSH, b"answer", 6, GRACE + 2, 4)  # it has what we have not
    both.segment(1, 506, 106, ACK | FIN, b"", 0, 2 * GRACE + 2, 5)
    both.segment(0, 106, 507, ACK | FIN, b"", 0, 2 * GRACE + 2, 6)
    both.finish()
    assert taken == [(1, 0, b"answer"), (0, 0, None), (0, 3, b"def")]
