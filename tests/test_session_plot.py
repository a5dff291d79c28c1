"""Time-sequence graphs: what is drawn, of sessions whose figures are known."""

import struct
import sys

import captures
import pytest

from pcaptools.core.wire import ACK, FIN, RST, SYN, TCP
from pcaptools.engines.sequence import KINDS, graphs, sack_blocks, shown
from pcaptools.engines.sessions import Session, Tracker, segments
from pcaptools.errors import OutputError, UsageError
from pcaptools.files import plot

NAMES = ["10.0.0.1:40000 > 10.0.0.2:80", "10.0.0.2:80 > 10.0.0.1:40000"]


def packet(way: int, seq: int, ack: int, flags: int, payload: bytes = b"", window: int = 8192, options: bytes = b""):
    ports = (40000, 80) if not way else (80, 40000)
    size = (20 + len(options)) // 4 << 4
    head = struct.pack(">HHIIBBHHH", *ports, seq % 2**32, ack % 2**32, size, flags, window, 0, 0) + options
    addresses = (captures.SOURCE4, captures.TARGET4) if not way else (captures.TARGET4, captures.SOURCE4)
    return captures.ether(captures.ipv4(head + payload, TCP, *addresses))


def rows(packets: list[bytes]):
    """The segments, a second apart."""
    tracker = Tracker(keep=True)
    data = captures.pcap([(1000 + k, 0, one, len(one)) for k, one in enumerate(packets)])
    for batch in captures.batches(data):
        tracker.feed(batch)
    (row,) = tracker.finish()
    return list(segments(tracker.kept(Session.of(row).slot)))


def sack(left: int, right: int) -> bytes:
    return struct.pack(">BBBBII", 1, 1, 5, 10, left % 2**32, right % 2**32)


BASE = 2**32 - 150
TALK = [
    packet(0, 99, 0, SYN, options=b"\4\2\1\1"),
    packet(1, BASE - 1, 100, SYN | ACK, options=b"\4\2\1\1"),
    packet(0, 100, BASE, ACK, b"x"),
    packet(1, BASE, 101, ACK, b"a" * 100),
    packet(1, BASE + 200, 101, ACK, b"c" * 100),
    packet(0, 101, BASE + 100, ACK, options=sack(BASE + 200, BASE + 300)),
    packet(1, BASE + 100, 101, ACK, b"b" * 100),
    packet(0, 101, BASE + 300, ACK, window=0),
    packet(1, BASE + 300, 101, FIN | ACK),
    packet(0, 101, BASE + 301, RST | ACK),
]
"""A server whose sequence numbers wrap; one segment was lost."""


def test_what_is_drawn() -> None:
    client, server = graphs(rows(TALK))
    assert client.segments["data"] == [(2.0, 1, 2)]
    assert client.marks == {"SYN": [(0.0, 0)], "RST": [(9.0, 2)]}
    lines = sorted(line for kind in KINDS for line in server.segments[kind])
    assert lines == [(3.0, 1, 101), (4.0, 201, 301), (6.0, 101, 201)]
    assert server.segments["data"] == lines[:2]
    assert server.acks == [(2.0, 1), (5.0, 101), (7.0, 301)]
    assert server.window == [(2.0, 8193), (5.0, 101 + 8192), (7.0, 301)]
    assert server.sacks == [(5.0, 201, 301)]
    assert server.marks == {"SYN": [(1.0, 0)], "zero window": [(7.0, 301)], "FIN": [(8.0, 301)]}
    assert server.rtts
    assert all(delay >= 1000 for _, delay in server.rtts)


def test_a_direction_that_carries_next_to_nothing_has_no_panel() -> None:
    assert [graph.direction for graph in shown(graphs(rows(TALK)))] == [1]
    assert [graph.direction for graph in shown(graphs(rows(TALK[:2])))] == [0, 1]
    assert graphs([]) == []


def test_options_that_lie_have_no_blocks() -> None:
    block = (7).to_bytes(4, "big") + (9).to_bytes(4, "big")
    assert list(sack_blocks(b"\1\1\5\12" + block)) == [(7, 9)]
    assert list(sack_blocks(b"\3\3\7\5\22" + block * 2)) == [(7, 9)] * 2
    for wrong in (
        b"",
        b"\5",
        b"\5\0" + block,
        b"\5\1" + block,
        b"\5\50" + block,
        b"\0\5\12" + block,
        b"\5\11" + block[:7],
    ):
        assert list(sack_blocks(wrong)) == []


class _Axes:
    """Remembers what is drawn."""

    def __init__(self) -> None:
        self.drawn: list[str] = []

    def __getattr__(self, name: str):
        def call(*values, **options):
            if options.get("label"):
                self.drawn.append(options["label"])
            return self if name == "vlines" else ([], [])

        return call


def test_a_panel_has_all_that_occurred() -> None:
    """Without matplotlib: on axes that only remember."""
    axes = _Axes()
    plot._sequence(axes, graphs(rows(TALK))[1])
    assert sorted(set(axes.drawn) - set(KINDS)) == ["ACK", "FIN", "SACK", "SYN", "window", "zero window"]
    assert "data" in axes.drawn


def test_what_is_needed_is_said(monkeypatch) -> None:
    with pytest.raises(UsageError, match=r"--plot-rtt: 'a\.gif' ends neither"):
        plot.check("a.gif", "--plot-rtt")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match="--plot-rtt needs matplotlib"):
        plot.check("a.svg", "--plot-rtt")


def test_files_are_drawn(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    found = graphs(rows(TALK))
    for draw in (plot.plot_sequence, plot.plot_rtt):
        for graph in (found, found[1:], graphs(rows(TALK[:1])), []):
            draw(str(tmp_path / "a.svg"), "title", graph, NAMES)
            assert b"</svg>" in (tmp_path / "a.svg").read_bytes()
        with pytest.raises(OutputError, match="No such file"):
            draw(str(tmp_path / "no" / "a.svg"), "title", found, NAMES)
