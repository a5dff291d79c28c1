"""Streams as files and as a dialogue: the bytes that were sent, maps of what lacks, nothing that drives a terminal."""

import json
import os
import random
import resource

import pytest

from pcaptools.engines.follow import LONGEST, PAUSE, Follow, hex_lines, printable
from pcaptools.engines.streams import POLICIES, Piece, Stream
from pcaptools.errors import OutputError
from pcaptools.files.stream_files import GAPS, StreamFiles

# ---- files ----------------------------------------------------------------------------------------------------------


def said(files: StreamFiles, name: str, *parts: bytes | int, start: int = 0) -> None:
    """Hand parts over, an int is a gap of so many bytes."""
    for part in parts:
        size = part if isinstance(part, int) else len(part)
        data = None if isinstance(part, int) else memoryview(part)
        files.take(name, start, size, data, 1000 + start, 1 + start)
        start += size


def gaps(path) -> list[tuple[int, int, int]]:
    with open(str(path) + GAPS) as file:
        return [(gap["file_offset"], gap["offset"], gap["size"]) for gap in json.load(file)["gaps"]]


def test_bytes_without_filler_and_a_map(tmp_path) -> None:
    files = StreamFiles(str(tmp_path / "new"), lambda ns: f"at {ns}")
    said(files, "a", b"hello ", b"world")
    said(files, "b", 3, b"abc", 2, b"de", 9)
    files.close("a", session=0)
    files.close("b", session=1, policy="first")
    files.close("never", session=2)
    assert sorted(os.listdir(tmp_path / "new")) == ["a", "b", "b" + GAPS]
    assert (tmp_path / "new" / "a").read_bytes() == b"hello world"
    assert (tmp_path / "new" / "b").read_bytes() == b"abcde"
    told = json.loads((tmp_path / "new" / ("b" + GAPS)).read_text())
    assert told == {
        "session": 1, "policy": "first", "bytes": 5, "missing": 14,
        "gaps": [
            {"file_offset": 0, "offset": 0, "size": 3, "before": "at 1000", "before_packet": 1},
            {"file_offset": 3, "offset": 6, "size": 2, "before": "at 1006", "before_packet": 7},
            {"file_offset": 5, "offset": 10, "size": 9, "before": "at 1010", "before_packet": 11},
        ],
    }  # fmt: skip
    assert (files.files, files.bytes, files.missing) == (2, 16, 14)


def test_pieces_that_go_back(tmp_path) -> None:
    files = StreamFiles(str(tmp_path), str)
    said(files, "a", b"abcd", 4, b"ijkl", 4, b"qrst")
    said(files, "a", b"CDEF", start=2)
    said(files, "a", b"N", start=13)
    files.close("a")
    assert (tmp_path / "a").read_bytes() == b"abCDEFijklNqrst"
    assert gaps(tmp_path / "a") == [(6, 6, 2), (10, 12, 1), (11, 14, 2)]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_file_and_its_map_are_the_stream(tmp_path, policy: str) -> None:
    draw = random.Random(20)
    files = StreamFiles(str(tmp_path), str)
    for number in range(200):
        stream, name, model = Stream(policy), f"{number:03}", {}
        stream.begin(99)
        for k in range(draw.randrange(2, 14)):
            low, size = draw.randrange(40), draw.randrange(1, 12)
            data, snap = draw.randbytes(size), draw.choice([size, size, draw.randrange(size + 1)])
            for piece in stream.add(100 + low, data[:snap], size, k * draw.choice([0, 1 << 40]), 1):
                files.take(name, *piece)
                for at in range(piece.size):
                    if piece.data is not None:
                        model[piece.start + at] = piece.data[at]
        for piece in stream.finish():
            files.take(name, *piece)
            model |= {piece.start + k: byte for k, byte in enumerate(piece.data or b"")}
        files.close(name)
        assert (tmp_path / name).read_bytes() == bytes(model[k] for k in sorted(model))
        lacking = [k for k in range(stream.position) if k not in model]
        found = gaps(tmp_path / name) if lacking else []
        assert [k for _, offset, size in found for k in range(offset, offset + size)] == lacking
        assert all(at == sum(k in model for k in range(offset)) for at, offset, _ in found)
        assert os.path.exists(str(tmp_path / name) + GAPS) == bool(lacking)


def test_many_streams_need_few_descriptors(tmp_path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = StreamFiles(str(tmp_path), str)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, hard))
    try:
        for part in (b"x" * 70_000, b"y" * 10):
            for number in range(100):
                start = 0 if part[:1] == b"x" else 70_000
                files.take(str(number), start, len(part), memoryview(part), 0, 0)
        for number in range(100):
            files.close(str(number))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert {path.stat().st_size for path in tmp_path.iterdir()} == {70_010}


def test_nothing_is_overwritten_and_nothing_unfinished_stays(tmp_path) -> None:
    (tmp_path / "b").write_bytes(b"mine")
    files = StreamFiles(str(tmp_path), str)
    said(files, "a", b"whole")
    files.close("a")
    said(files, "c", b"x" * 100_000)
    with pytest.raises(OutputError, match="exists: choose a directory without it"):
        said(files, "b", b"theirs")
    assert files.abandon() == []
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    assert (tmp_path / "b").read_bytes() == b"mine"
    with pytest.raises(OutputError, match=r"Not a directory|File exists"):
        StreamFiles(str(tmp_path / "a"), str)


def test_a_full_disk_is_said(tmp_path, monkeypatch) -> None:
    files = StreamFiles(str(tmp_path), str)
    said(files, "a", b"text")
    monkeypatch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match="a: No space left on device"):
        files.close("a")
    files.abandon()
    assert os.listdir(tmp_path) == []


# ---- a dialogue -----------------------------------------------------------------------------------------------------


def followed(*parts: tuple[int, bytes | int], form: str = "text") -> list[str]:
    lines: list[str] = []
    follow, at = Follow(lines.append, lambda ns: f"{ns} ns", form), [0, 0]
    for k, (way, part) in enumerate(parts):
        size = part if isinstance(part, int) else len(part)
        follow(way, Piece(at[way], size, None if isinstance(part, int) else memoryview(part), k, k + 1))
        at[way] += size
    follow.finish()
    return lines


def test_a_dialogue_as_text() -> None:
    assert followed((0, b"GET / HT"), (0, b"TP/1.1\r\n\r\n"), (1, b"200"), (1, 7), (1, b"ok\n"), (0, b"bye")) == [
        "--> 0 ns packet 1", "GET / HTTP/1.1", "", "",
        "<-- 2 ns packet 3", "200", "--- missing: 7 bytes from offset 3 on", "ok", "",
        "--> 5 ns packet 6", "bye",
    ]  # fmt: skip


def test_a_dialogue_as_hex() -> None:
    assert followed((0, bytes(range(60, 78))), (1, b"\0\xff"), form="hex") == [
        "--> 0 ns packet 1",
        "00000000  3c 3d 3e 3f 40 41 42 43 44 45 46 47 48 49 4a 4b  <=>?@ABCDEFGHIJK",
        "00000010  4c 4d                                            LM",
        "",
        "<-- 1 ns packet 2",
        "00000000  00 ff                                            ..",
    ]
    assert list(hex_lines(b"a", 0x12345)) == ["00012345  61" + " " * 47 + "a"]


def test_time_is_told_again_after_a_pause() -> None:
    lines: list[str] = []
    follow = Follow(lines.append, str)
    for time in (0, PAUSE - 1, 3 * PAUSE):
        follow(0, Piece(0, 1, b"x", time, 1))
    follow.finish()
    assert lines == ["--> 0 packet 1", "xx", "", f"--> {3 * PAUSE} packet 1", "x"]


def test_nothing_reaches_the_terminal_as_it_is() -> None:
    (_, line) = followed((0, b"\x1b[2J\x07\x00\x7f\xc2\x9b1m a\tb \xff\xfe \xe2\x80\xae \xc3\xa4\rx"))
    assert line == r"\x1b[2J\x07\x00\x7f\x9b1m a" + "\tb " + r"\xff\xfe \u202e ä\x0dx"
    assert printable("plain") == "plain"
    assert printable("\U000e0001") == r"\U000e0001"
    every = "".join(map(chr, range(0x3000)))
    assert all(c in "\n\t" or c.isprintable() for c in printable(every))


def test_a_character_in_two_segments_is_one() -> None:
    assert followed((0, b"\xc3"), (0, b"\xa4"), (1, b"\xe2\x82"), (0, b"\x82"))[1:] == [
        "ä", "", "<-- 2 ns packet 3", r"\xe2\x82", "", "--> 3 ns packet 4", r"\x82",
    ]  # fmt: skip


def test_a_line_without_an_end_is_folded() -> None:
    lines = followed(*[(0, b"x" * 1000)] * 100)
    assert max(map(len, lines)) <= LONGEST
    assert "".join(lines[1:]) == "x" * 100_000
