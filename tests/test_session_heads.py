"""What the tracker keeps of sessions that begin with TLS says what reading all of them says; and sessions that went
wrong like others are counted as they are when each is handed out."""

from __future__ import annotations

import random
import struct

import captures
import pytest

from pcaptools.core.wire import ACK, FIN, RST, SYN
from pcaptools.engines.contents import Reader, read_head
from pcaptools.engines.seek import Seek
from pcaptools.engines.sessions import Session, Tracker
from pcaptools.engines.sessions_report import Alike, names_of
from pcaptools.engines.triggers import Triggers

SEEK = Seek(tls=True, dns=True, reach=1)
CLIENT, SERVER = captures.SOURCE4, captures.TARGET4


def segment(flags: int, seq: int, ack: int, data: bytes = b"", port: int = 40000, to: int = 443, back: bool = False):
    ends = (SERVER, CLIENT) if back else (CLIENT, SERVER)
    ports = (to, port) if back else (port, to)
    head = struct.pack(">HHIIBBHHH", *ports, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 0x50, flags, 8192, 0, 0)
    return captures.ether(captures.ipv4(head + data, 6, *ends))


def capture(frames) -> bytes:
    return captures.pcap([(1000 + k // 1000, k % 1000 * 1000, f, len(f)) for k, f in enumerate(frames)])


def both(data: bytes, size: int = 1 << 20) -> list[tuple[list[str], list[str], int]]:
    """Of every session that has no DNS: its names by the reader, by its head, and bytes that the head holds."""
    whole, heads = Tracker(rows=True), Tracker(rows=True, heads=True)
    reader = Reader(whole, SEEK)
    for batch in captures.batches(data, size):
        whole.feed(batch)
        reader.feed(batch)
        heads.feed(batch)
    found = []
    for one, other in zip(whole.finish(), heads.finish(), strict=True):
        session, read = Session.of(other), reader.close(one[0])
        head = heads.heads(session.slot)
        if 53 not in (session.client_port, session.server_port):
            by_head = names_of(read_head(SEEK, session, head))
            found.append((names_of(read), by_head, sum(len(row[-1]) for row in head)))
    return found


def hello(kind: int, name: bytes = b"", size: int = 0) -> bytes:
    """A record with a hello; its session ID and random are zeros."""
    names = struct.pack(">HHHBH", 0, len(name) + 5, len(name) + 3, 0, len(name)) + name if name else b""
    names += struct.pack(">HH", 21, size) + bytes(size) if size else b""
    choice = b"\0\2\x13\1\1\0" if kind == 1 else b"\x13\1\0"
    body = b"\3\3" + bytes(32) + b"\0" + choice + struct.pack(">H", len(names)) + names
    message = bytes([kind]) + struct.pack(">I", len(body))[1:] + body
    return b"\x16\3\1" + struct.pack(">H", len(message)) + message


def talk(client: bytes, server: bytes, cut: int, shuffle: random.Random | None, base: int = 2**32 - 50) -> bytes:
    frames = []
    for back, data, mine, other in ((False, client, base, 500), (True, server, 500, base + len(client))):
        part = [
            segment(ACK, mine + 1 + at, other + 1, data[at : at + cut], back=back) for at in range(0, len(data), cut)
        ]
        if shuffle:
            part += part[:2]
            shuffle.shuffle(part)
        frames += part
    opening = [
        segment(SYN, base, 0),
        segment(SYN | ACK, 500, base + 1, back=True),
        segment(ACK, base + 1, 501),
    ]
    return capture([*opening, *frames])


def test_heads_say_what_reading_all_says(merged) -> None:
    found = both(merged.path.read_bytes())
    assert sum(bool(names) for names, _, _ in found) > 30
    assert [(names, head) for names, head, _ in found if names != head] == []


@pytest.mark.parametrize("cut", (1, 2, 5, 6, 9, 40, 1000))
@pytest.mark.parametrize("seed", (None, 1, 2))
def test_a_hello_in_segments_of_any_size_and_order(cut: int, seed: int | None) -> None:
    shuffle = random.Random(seed) if seed else None
    client, server = hello(1, b"www.example.org") + bytes(700), hello(2) + b"\x17\3\3\0\5hello" * 50
    ((names, head, _),) = both(talk(client, server, max(cut, 40) if shuffle else cut, shuffle), 700)
    assert head == names == ["TLS 1.2 www.example.org"]


def test_no_more_is_kept_than_is_needed() -> None:
    client, server = hello(1, b"www.example.org", 1500), hello(2)
    ((_, head, kept),) = both(talk(client + bytes(100_000), server + bytes(100_000), 1000, None))
    assert head == ["TLS 1.2 www.example.org"]
    assert kept < len(client) + len(server) + 2000
    for endless in (b"\x16\3\1\xff\xff\1\xff\xff\xff", b"\x16", b"\x14\3\3\0\1\1"):
        ((_, _, kept),) = both(talk(endless + bytes(50_000), b"", 1000, None))
        assert kept <= 1 << 14
    for plain in (b"GET / HTTP/1.1\r\n", b"\x16\2\1\0\5\1\0\0\0", b"\x16\3\1\0\5\3\0\0\0", b"\0"):
        ((_, _, kept),) = both(talk(plain + bytes(5000), b"\x16\3\1\0", 1000, None))
        assert kept == 0


def test_garbage_never_hurts() -> None:
    draw = random.Random(7)
    sound = hello(1, b"a.example") + hello(2)
    for _ in range(300):
        data = bytearray(sound)
        for _ in range(draw.randrange(1, 5)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        ((names, head, _),) = both(talk(bytes(data[: draw.randrange(1, len(data))]), bytes(data), 60, draw))
        assert head in (names, [])  # what begins with no hello is not read on


# --- sessions that are alike --------------------------------------------------------------------------------------


def mishaps(draw: random.Random, count: int) -> bytes:
    """Sessions that go wrong in one of several ways, with some servers."""
    frames = []
    for k in range(count):
        port, to, kind = 1024 + k, draw.choice((80, 81, 443)), draw.randrange(5)
        frames.append(segment(SYN, 1, 0, port=port, to=to))
        if kind == 1:
            frames.append(segment(SYN, 1, 0, port=port, to=to))
        elif kind == 2:
            frames.append(segment(RST | ACK, 0, 2, port=port, to=to, back=True))
        elif kind >= 3:
            frames.append(segment(SYN | ACK, 9, 2, port=port, to=to, back=True))
            frames.append(segment(ACK, 2, 10, b"x", port=port, to=to))
            frames.append(segment(RST if kind == 3 else FIN | ACK, 3, 10, port=port, to=to, back=False))
            frames.append(segment(ACK, 10, 4, port=port, to=to, back=True))
    return capture(frames)


@pytest.mark.parametrize("limit", (0, 20))
@pytest.mark.parametrize("seed", range(6))
def test_counting_alike_sessions_in_the_table_changes_nothing(seed: int, limit: int) -> None:
    data = mishaps(random.Random(seed), 300)
    triggers = Triggers(incomplete=bool(seed % 2))
    results = []
    for hushes in (False, True):
        tracker = Tracker(sessions=limit, keep=True)
        tracker.choose(**triggers.chosen())
        alike = Alike(3, tracker if hushes else None)
        shown = handed = 0
        for batch in captures.batches(data, 3000):
            tracker.feed(batch)
            for row in tracker.ended():
                handed += 1
                shown += alike.shows(Session.of(row), triggers.reasons(Session.of(row)))
        for row in tracker.finish():
            handed += 1
            shown += alike.shows(Session.of(row), triggers.reasons(Session.of(row)))
        hidden, lines = alike.hidden, list(alike.lines())
        results.append((shown, hidden, sorted(line for line in lines if " with " in line), tracker.totals))
        assert sum(tracker.hushed()) + handed == tracker.totals["chosen"]
    assert results[0] == results[1]
    assert handed < 100 < tracker.totals["chosen"]


def test_a_client_may_be_hushed_and_kinds_have_an_end() -> None:
    frames = [segment(SYN, 1, 0, port=1000, to=to) for to in range(1, 6000)]
    tracker = Tracker()
    tracker.choose(no_reply=True)
    batch = captures.one_batch([(1000, 0, frame, len(frame)) for frame in frames])
    tracker.feed(batch)
    numbers = [tracker.hush(row[1], False) for row in tracker.finish()]
    assert numbers == [*range(1, 4097), *[0] * (len(frames) - 4096)]
    assert sum(tracker.hushed()) == 0
    tracker = Tracker()
    tracker.choose(no_reply=True)
    tracker.feed(batch)
    handed = []
    for row in tracker.finish():
        handed.append(row[0])
        assert tracker.hush(row[1], True) == 1
    assert handed == [0]
    assert tracker.hushed() == [0, len(frames) - 1]
