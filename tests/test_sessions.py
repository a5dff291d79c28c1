"""The session table: states, anomalies, figures and the life of a session, on segments made by hand."""

from __future__ import annotations

import random
import struct

import captures
import pytest
from captures import SOURCE4, TARGET4, ether, ipv4, ipv6
from test_sessions_tshark import made_at_random

from pcaptools.core import _sessions
from pcaptools.core.wire import ACK, FIN, PSH, RST, SYN
from pcaptools.engines.sessions import (
    BIT,
    BITS,
    NOTED,
    REASONS,
    ROW,
    ROW_SIZE,
    RST_KINDS,
    STATES,
    Segment,
    Session,
    Tracker,
    bit_names,
    segments,
)  # fmt: skip

A, B = SOURCE4, TARGET4
SECOND = 10**9
URG, ECE, CWR = 32, 64, 128


def seg(flags, seq, ack=0, data=b"", *, back=False, win=8192, opt=b"", port=4000, tos=0, wire=None):
    """A frame from the client, A:port to B:80, or back; numbers modulo 2^32."""
    ports = (80, port) if back else (port, 80)
    head = struct.pack(">HHIIBBHHH", *ports, seq % 2**32, ack % 2**32, 5 + len(opt) // 4 << 4, flags, win, 0, 0)
    packet = bytearray(ipv4(head + opt + data, 6, *((B, A) if back else (A, B))))
    packet[1] = tos
    return ether(bytes(packet))


def capture(frames) -> bytes:
    """frames: one each 10 ms, or (ms, frame)."""
    timed = [f if isinstance(f, tuple) else (k * 10, f) for k, f in enumerate(frames)]
    return captures.pcap([(1000 + ms // 1000, ms % 1000 * 1000, frame, len(frame)) for ms, frame in timed])


def run(frames, **options) -> tuple[list[Segment], list[Session]]:
    """The segments of these frames, and the sessions in the order in which they are handed out."""
    tracker, rows, ended = Tracker(rows=True, **options), [], []
    for batch in captures.batches(capture(frames)):
        tracker.feed(batch)
        rows += segments(tracker.rows())
        ended += map(Session.of, tracker.ended())
    return rows, [*ended, *map(Session.of, tracker.finish())]


def one(frames, **options) -> Session:
    [session] = run(frames, **options)[1]
    return session


def states(frames) -> list[tuple[str, str]]:
    rows, _ = run(frames)
    return [(STATES[row.client_state], STATES[row.server_state]) for row in rows]


OPEN = [seg(SYN, 100), seg(SYN | ACK, 900, 101, back=True), seg(ACK, 101, 901)]
CLOSE = [
    seg(FIN | ACK, 101, 901),
    seg(ACK, 901, 102, back=True),
    seg(FIN | ACK, 901, 102, back=True),
    seg(ACK, 102, 902),
]


def data(at, size, ack=901, **more):
    return seg(PSH | ACK, at, ack, bytes(size), **more)


def answer(at, ack, size=0, **more):
    return seg(ACK, at, ack, bytes(size), back=True, **more)


# ---- states (RFC 9293) ----------------------------------------------------------------------------------------------


def test_states_from_open_to_close() -> None:
    assert states([*OPEN, *CLOSE]) == [
        ("SYN_SENT", "SYN_RECEIVED"), ("ESTABLISHED", "SYN_RECEIVED"), ("ESTABLISHED", "ESTABLISHED"),
        ("FIN_WAIT_1", "CLOSE_WAIT"), ("FIN_WAIT_2", "CLOSE_WAIT"), ("TIME_WAIT", "LAST_ACK"), ("TIME_WAIT", "CLOSED"),
    ]  # fmt: skip


def test_states_when_fin_answers_fin() -> None:
    both = [seg(FIN | ACK, 901, 101, back=True), seg(FIN | ACK, 101, 902), seg(ACK, 902, 102, back=True)]
    assert states([*OPEN, *both])[3:] == [
        ("CLOSE_WAIT", "FIN_WAIT_1"), ("LAST_ACK", "TIME_WAIT"), ("CLOSED", "TIME_WAIT")
    ]  # fmt: skip


def test_both_close_at_once() -> None:
    frames = [
        *OPEN, seg(FIN | ACK, 101, 901), seg(FIN | ACK, 901, 101, back=True), seg(ACK, 102, 902),
        seg(ACK, 902, 102, back=True),
    ]  # fmt: skip
    assert states(frames)[3:] == [
        ("FIN_WAIT_1", "CLOSE_WAIT"), ("CLOSING", "CLOSING"), ("CLOSING", "TIME_WAIT"), ("TIME_WAIT", "TIME_WAIT")
    ]  # fmt: skip
    assert one(frames).simultaneous == 2
    assert one(frames).close_reason == "fin"


def test_both_open_at_once() -> None:
    frames = [
        seg(SYN, 100), seg(SYN, 900, back=True), seg(SYN | ACK, 100, 901), seg(SYN | ACK, 900, 101, back=True),
    ]  # fmt: skip
    assert states(frames) == [
        ("SYN_SENT", "SYN_RECEIVED"), ("SYN_RECEIVED", "SYN_RECEIVED"), ("SYN_RECEIVED", "ESTABLISHED"),
        ("ESTABLISHED", "ESTABLISHED"),
    ]  # fmt: skip
    assert one(frames).simultaneous == 1


def test_a_session_from_the_middle() -> None:
    rows, [session] = run([answer(901, 500, 5), data(500, 3, 906), *[answer(906, 503)]])
    assert [row.direction for row in rows] == [1, 0, 1]
    assert (session.start, session.guessed, session.client_port) == (0, True, 4000)
    assert session.states == ("ESTABLISHED", "ESTABLISHED")
    assert session.sender == 1


def test_without_the_syn() -> None:
    rows, [session] = run(OPEN[1:])
    assert [(row.client_state, row.server_state) for row in rows] == [(5, 4), (5, 5)]
    assert (session.start, session.client, session.guessed) == (2, A, False)


def test_without_the_syn_ack() -> None:
    assert states([OPEN[0], OPEN[2], answer(901, 101, 3)])[-1] == ("ESTABLISHED", "ESTABLISHED")


# ---- RST ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "kind", "by", "bit"),
    [
        ([OPEN[0], seg(RST | ACK, 0, 101, back=True)], "refused", 1, "rst_refused"),
        ([*OPEN, seg(RST, 101)], "plain", 0, None),
        ([*OPEN, data(101, 5), seg(RST | ACK, 901, 106, back=True)], "after-data", 1, "rst_after_data"),
        ([*OPEN, CLOSE[0], seg(RST, 901, back=True)], "after-fin", 1, "rst_after_fin"),
        ([*OPEN, seg(RST | ACK, 101, 901, b"cause")], "plain", 0, "rst_with_data"),
    ],
)
def test_rst(frames, kind, by, bit) -> None:
    rows, [session] = run(frames)
    assert (RST_KINDS[session.rst_kind], session.rst_by, session.ended_by) == (kind, by, by)
    assert (session.close_reason, session.states, session.rst_packet) == ("rst", ("CLOSED", "CLOSED"), len(frames))
    assert not bit or bit in bit_names(rows[-1].bits)


def test_a_rst_outside_of_the_window_changes_nothing() -> None:
    rows, [session] = run([*OPEN, seg(RST, 500000)])
    assert "rst_ignored" in bit_names(rows[-1].bits)
    assert (session.close_reason, session.rst_kind, session.states[0]) == ("open", 0, "ESTABLISHED")


# ---- anomalies ------------------------------------------------------------------------------------------------------


def last_bits(frames) -> set[str]:
    return set(bit_names(run(frames)[0][-1].bits))


SACK = b"\1\1\5\n" + struct.pack(">II", 301, 401)


@pytest.mark.parametrize(
    ("frames", "bits"),
    [
        ([seg(SYN, 100), (1000, seg(SYN, 100))], {"retransmission", "syn_retransmission", "timeout_retransmission"}),
        ([*OPEN, data(101, 10), (900, data(101, 10))], {"retransmission", "timeout_retransmission"}),
        ([*OPEN, data(101, 10), (900, data(101, 15))], {"retransmission", "partial_overlap"}),
        ([*OPEN, data(101, 10), answer(901, 111), data(101, 10)], {"retransmission", "spurious_retransmission"}),
        ([*OPEN, data(111, 10)], {"lost_segment"}),
        ([*OPEN, (30, data(111, 10)), (31, data(101, 10))], {"out_of_order", "filled_gap"}),
        ([*OPEN, data(101, 10), answer(901, 131)], {"ack_lost_segment"}),
        ([*OPEN, data(101, 10), answer(901, 111), answer(901, 111)], {"duplicate_ack"}),
        ([*OPEN, data(101, 10), data(110, 1)], {"keep_alive"}),
        ([*OPEN, data(100, 1), answer(901, 101)], {"keep_alive_ack"}),
        ([*OPEN, answer(901, 101, win=0)], {"zero_window"}),
        ([*OPEN, answer(901, 101, win=0), data(101, 1)], {"zero_window_probe"}),
        ([*OPEN, answer(901, 101, win=0), answer(901, 101, win=9)], {"window_update"}),
        ([*OPEN, answer(901, 101, win=10), data(101, 10)], {"window_full"}),
        ([*OPEN, CLOSE[0], CLOSE[0]], {"retransmission", "fin_retransmission"}),
        ([*OPEN, answer(901, 101, opt=SACK)], {"sack"}),
        ([*OPEN, seg(ACK | ECE, 101, 901, b"x", tos=3)], {"ecn_ce", "ecn_ece"}),
        ([*OPEN, seg(ACK | CWR | URG, 101, 901, b"x")], {"ecn_cwr", "urgent"}),
        ([seg(SYN, 100, data=b"early", opt=b"\x22\x06abcd\1\1")], {"fast_open"}),
        ([*OPEN, seg(0, 101, 0, b"x")], {"no_flags"}),
        ([*OPEN, seg(ACK, 101, 901, b"x", opt=b"\2\1\0\0")], {"bad_options"}),
        ([*OPEN, *CLOSE, CLOSE[2]], {"retransmission", "fin_retransmission", "after_close"}),
    ],
)
def test_anomalies(frames, bits) -> None:
    found = last_bits(frames)
    assert found >= bits
    assert not (found - bits) & {"lost_segment", "ack_lost_segment", "out_of_order", "spurious_retransmission"}


def test_fast_retransmission_and_its_original() -> None:
    lost = [data(101 + 100 * k, 100) for k in range(6)]
    acks = [(100 + k, answer(901, 201)) for k in range(4)]
    rows, [session] = run([*OPEN, *lost, *acks, (105, data(201, 100))])
    assert bit_names(rows[-1].bits) == ["retransmission", "fast_retransmission"]
    assert (rows[-1].original, rows[-1].gap) == (5, 65_000_000)
    assert [row.dup_ack for row in rows[-5:]] == [0, 1, 2, 3, 0]
    assert (session.gap_max, session.retransmitted, session.ends[1].dup_ack_max) == (65_000_000, 1, 3)


def test_dsack() -> None:
    below = b"\1\1\5\n" + struct.pack(">II", 101, 111)
    inside = b"\1\1\5\x12" + struct.pack(">IIII", 201, 211, 201, 301)
    for option in (below, inside):
        frames = [*OPEN, data(101, 10), answer(901, 111), answer(901, 111, opt=option)]
        assert "dsack" in last_bits(frames)
    assert "dsack" not in last_bits([*OPEN, answer(901, 101, opt=SACK)])


def test_bits_have_the_numbers_of_the_native_side() -> None:
    assert _sessions.NOTED == NOTED
    assert len(BIT) == len(BITS) == 38
    assert (ROW.size, ROW_SIZE % 8) == (ROW_SIZE, 0)


def test_notes_are_limited_and_counted() -> None:
    session = one([*OPEN, *(data(101, 10) for _ in range(10))], notes=3)
    assert len(session.notes) == 3
    assert session.notes_dropped == 6
    packet, _, bits, direction = session.notes[0]
    assert (packet, direction) == (5, 0)
    assert "retransmission" in bit_names(bits)


# ---- figures --------------------------------------------------------------------------------------------------------


def test_figures() -> None:
    ok = b"\2\4\5\xb4\1\3\3\7\4\2\x08\x0a" + bytes(8)
    frames = [
        (0, seg(SYN | ECE | CWR, 100, opt=ok)), (30, seg(SYN | ACK, 900, 101, back=True, opt=ok)), (31, OPEN[2]),
        (40, data(101, 100)), (41, data(201, 50)), (90, answer(901, 251, win=10)), (95, answer(901, 251, 7, win=10)),
        (96, data(251, 0, 908)),
    ]  # fmt: skip
    session = one(frames)
    client, server = session.ends
    assert (session.handshake, session.syn_time) == (31_000_000, 30_000_000)
    assert (client.packets, client.payload, client.unique, client.data_packets) == (5, 150, 150, 2)
    assert (client.mss, client.window_scale, client.sack_permitted, client.timestamps) == (1460, 7, True, True)
    assert (client.ecn, server.ecn, client.isn, server.isn) == (True, False, 100, 900)
    assert (client.segment_min, client.segment_max) == (50, 100)
    assert (client.initial_window_bytes, client.initial_window_packets) == (150, 2)
    assert (server.window_max, server.window_min) == (1280, 1280)
    assert (client.rtt_samples, client.rtt_min, client.rtt_max) == (2, 30_000_000, 49_000_000)
    assert (server.payload, server.pure_acks, server.rtt_samples) == (7, 1, 2)
    assert session.duration == 96_000_000


def test_bytes_seen_repeated_and_missing() -> None:
    frames = [*OPEN, data(101, 10), data(151, 10), data(121, 10), data(121, 10), data(126, 10), CLOSE[0]]
    client = one(frames).ends[0]
    assert (client.payload, client.unique, client.repeated, client.missing) == (50, 35, 15, 25)


@pytest.mark.parametrize("seed", range(5))
def test_bytes_against_a_set(seed) -> None:
    chance = random.Random(seed)
    base, seen, sent, top = 2**32 - 400, set(), 0, 0
    frames = [seg(SYN, base - 1)]
    for _ in range(150):
        at = max(0, top + chance.choice([0, 0, 0, -30, -60, 20])) if chance.random() < 0.8 else chance.randint(0, top)
        size = chance.randint(2, 40)
        frames.append(data(base + at, size))
        seen.update(range(at, at + size))
        sent += size
        top = max(top, at + size)
    client = one(frames).ends[0]
    assert (client.payload, client.unique, client.missing) == (sent, len(seen), top - len(seen))
    assert client.repeated <= sent - len(seen)


def test_rtt_of_many_samples() -> None:
    frames, at, now = list(OPEN), 101, 100
    for k in range(400):
        frames += [(now, data(at, 10)), (now + 1 + k % 100, answer(901, at + 10))]
        at, now = at + 10, now + 200
    client = one(frames).ends[0]
    assert client.rtt_samples == 401
    assert (client.rtt_min, client.rtt_max) == (1_000_000, 100_000_000)
    assert client.rtt_median == pytest.approx(50_000_000, rel=0.05)
    assert client.rtt_p95 == pytest.approx(95_000_000, rel=0.05)


def test_no_rtt_of_what_was_sent_twice() -> None:
    rows, [session] = run([*OPEN, data(101, 10), (500, data(101, 10)), (510, answer(901, 111))])
    assert (rows[-1].rtt, session.ends[0].rtt_samples) == (-1, 1)


def test_a_stream_through_the_end_of_numbers() -> None:
    start = 2**32 - 250
    frames = [seg(SYN, start - 1), seg(SYN | ACK, 2**32 - 1, start, back=True), seg(ACK, start, 0)]
    for k in range(8):
        frames += [data(start + 100 * k, 100, 0), answer(0, start + 100 * k + 100)]
    rows, [session] = run([*frames, seg(FIN | ACK, start + 800, 0), seg(FIN | ACK, 0, start + 801, back=True)])
    assert not session.bits
    assert (session.ends[0].unique, session.ends[0].stream_length) == (800, 800)
    assert rows[-2].rel_seq == 801


# ---- the life of a session ------------------------------------------------------------------------------------------


def test_ports_used_again_begin_another_session() -> None:
    first, second = run([*OPEN, *CLOSE, seg(SYN, 5000), seg(SYN | ACK, 7, 5001, back=True)])[1]
    assert (first.close_reason, second.close_reason) == ("fin", "open")
    assert (first.id, second.id) == (0, 1)
    assert "reused_ports" in bit_names(second.bits)
    assert run([*OPEN, seg(SYN, 5000)])[1][0].close_reason == "reused"


def test_the_same_syn_after_a_refusal_is_the_same_session() -> None:
    session = one([seg(SYN, 100), seg(RST | ACK, 0, 101, back=True), seg(SYN, 100)])
    assert (session.close_reason, session.states) == ("open", ("SYN_SENT", "SYN_RECEIVED"))


def test_late_packets_belong_to_a_closed_session_while_it_lingers() -> None:
    late = [(1000, CLOSE[2]), (1100, CLOSE[3])]
    assert one([*OPEN, *CLOSE, *late], linger_ns=5 * SECOND).packets == 9
    first, second = run([*OPEN, *CLOSE, (9000, CLOSE[2])], linger_ns=5 * SECOND)[1]
    assert (first.packets, first.close_reason, second.packets, second.start) == (7, "fin", 1, 0)


def batches_of(tracker, frames) -> list[Session]:
    """Each frame in a batch of its own."""
    ended = []
    for frame in frames:
        for batch in captures.batches(capture([frame])):
            tracker.feed(batch)
            ended += map(Session.of, tracker.ended())
    return ended


def test_an_idle_session_is_handed_out_by_capture_time() -> None:
    tracker = Tracker(idle_ns=60 * SECOND)
    other = [(ms, seg(SYN, 1, port=5000)) for ms in (30_000, 59_000, 80_000)]
    [session] = batches_of(tracker, [(0, OPEN[0]), (10, OPEN[1]), *other])
    assert (session.close_reason, session.client_port, session.packets) == ("idle", 4000, 2)
    assert tracker.opened() == 1
    tracker.expire(2000 * SECOND)
    [session] = map(Session.of, tracker.ended())
    assert session.client_port == 5000
    assert list(tracker.finish()) == []


def test_one_wild_timestamp_ends_nothing() -> None:
    tracker = Tracker(idle_ns=60 * SECOND)
    frames = [(0, OPEN[0]), (10, OPEN[1]), (10**9, seg(SYN, 1, port=9)), (20, OPEN[2]), (30, data(101, 5))]
    for batch in captures.batches(capture(frames)):
        tracker.feed(batch)
    assert [Session.of(session).packets for session in tracker.finish()] == [4, 1]


def test_ended_sessions_are_handed_out_once_and_their_rows_until_the_next_batch() -> None:
    tracker = Tracker(keep=True, linger_ns=SECOND)
    for batch in captures.batches(capture([*OPEN, *CLOSE])):
        tracker.feed(batch)
    assert not list(tracker.ended())
    for batch in captures.batches(capture([(5000, seg(SYN, 1, port=9))])):
        tracker.feed(batch)
    [session] = map(Session.of, tracker.ended())
    assert [row.packet for row in segments(tracker.kept(session.slot))] == list(range(1, 8))
    assert not list(tracker.ended())
    for batch in captures.batches(capture([(5001, seg(SYN, 1, port=10))])):
        tracker.feed(batch)
    with pytest.raises(IndexError):
        tracker.kept(session.slot + 1000)
    assert [Session.of(session).client_port for session in tracker.finish()] == [9, 10]


def test_kept_rows_are_those_of_the_batch_and_limited() -> None:
    tracker = Tracker(keep=True, rows=True, segments=4)
    for batch in captures.batches(capture([*OPEN, *CLOSE])):
        tracker.feed(batch)
    rows, slot = list(segments(tracker.rows())), next(tracker.sessions())[1]
    assert list(segments(tracker.kept(slot))) == rows[-4:]
    session = Session.of(tracker.session(slot))
    assert (session.rows, session.rows_dropped) == (4, 3)


def test_unwatched_sessions_have_no_rows() -> None:
    tracker = Tracker(rows=True)
    for batch in captures.batches(capture(OPEN)):
        tracker.feed(batch)
    slot = next(segments(tracker.rows())).slot
    tracker.watch(slot, False)
    for batch in captures.batches(capture([data(101, 5)])):
        tracker.feed(batch)
    assert not len(tracker.rows())
    tracker.watch(slot, True)
    tracker.payload_rows(True)
    for batch in captures.batches(capture([answer(901, 106), answer(901, 106, 4)])):
        tracker.feed(batch)
        [row] = segments(tracker.rows())
        assert bytes(batch.view()[row.at : row.at + row.captured]) == bytes(4)


@pytest.mark.parametrize(
    ("choice", "ports"),
    [
        ({}, []),
        ({"everything": True}, [1, 2, 3, 4]),
        ({"bits": BIT["retransmission"]}, [2]),
        ({"incomplete": True}, [2, 3]),
        ({"no_reply": True}, [3]),
        ({"rst": 1}, [4]),
        ({"retransmit_ns": 900_000_000}, [2]),
        ({"connect_ns": SECOND}, [2]),
        ({"delay_ns": SECOND // 2}, [2]),
        ({"handshake_ns": 25_000_000}, []),
        ({"handshake_ns": 20_000_000}, [1, 2]),
    ],
)
def test_only_chosen_sessions_are_handed_out(choice, ports) -> None:
    def on(port, frames):
        return [frame[:34] + struct.pack(">H", port) + frame[36:] if frame[34:36] != b"\0P" else
                frame[:36] + struct.pack(">H", port) + frame[38:] for frame in frames]  # fmt: skip

    [again] = on(2, [data(101, 5)])
    frames = [
        *enumerate(on(1, [*OPEN, *CLOSE])), *enumerate(on(2, OPEN)), (5000, again), (6000, again),
        *enumerate(on(3, OPEN[:1])), *enumerate(on(4, [OPEN[0], seg(RST | ACK, 0, 101, back=True)])),
    ]  # fmt: skip
    frames = [(k * 10 if k < 100 else k, frame) for k, frame in frames]
    tracker = Tracker()
    tracker.choose(**choice)
    for batch in captures.batches(capture(frames)):
        tracker.feed(batch)
    assert [Session.of(session).client_port for session in tracker.finish()] == ports
    assert tracker.totals["sessions"] == 4
    assert tracker.totals["chosen"] == len(ports)


# ---- limits ---------------------------------------------------------------------------------------------------------


def flood(sources: range) -> bytes:
    frame = seg(SYN, 100)
    return captures.pcap(
        [(1 + k // 1000, k % 1000, frame[:26] + struct.pack(">I", k) + frame[30:], 54) for k in sources]
    )


def test_a_syn_flood_is_bounded() -> None:
    tracker, handed, most = Tracker(sessions=1000, idle_ns=3600 * SECOND), 0, 0
    for start in range(0, 60_000, 20_000):
        for batch in captures.batches(flood(range(start, start + 20_000))):
            tracker.feed(batch)
            handed += sum(1 for _ in tracker.ended())
            most = max(most, tracker.opened())
    assert most == 1000
    assert handed == 59_000
    assert tracker.totals["evicted"] == 59_000
    assert sum(1 for _ in tracker.finish()) == 1000


def test_a_million_sources_in_the_memory_of_a_thousand() -> None:
    import resource

    tracker = Tracker(sessions=1000)
    tracker.choose()
    batch = next(captures.batches(flood(range(20_000))))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    view = batch.view()
    while tracker.totals["packets"] < 1_000_000:
        tracker.feed(batch)
        for k in range(0, batch.n, 977):
            offset = batch.record(k)[3] + 26
            view[offset] ^= 1
    assert tracker.opened() == 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_who_is_active_is_not_evicted() -> None:
    tracker, ended = Tracker(sessions=10), []
    frames: list[tuple[int, bytes]] = [(k, frame) for k, frame in enumerate(OPEN)]
    for k in range(200):
        frames += [(10 + 2 * k, seg(SYN, 7, port=10000 + k)), (11 + 2 * k, data(101 + k, 1))]
    for batch in captures.batches(capture(frames)):
        tracker.feed(batch)
        ended += [Session.of(session) for session in tracker.ended()]
    assert 4000 not in {session.client_port for session in ended}
    assert {REASONS[session.reason] for session in ended} == {"evicted"}


# ---- hostile input --------------------------------------------------------------------------------------------------


def checked(tracker: Tracker) -> None:
    """Every packet is in one book, and the sessions have all segments."""
    counts = tracker.counts
    assert counts["packets"] == sum(value for name, value in counts.items() if name != "packets")
    sessions = [Session.of(session) for session in tracker.finish()]
    assert sum(session.packets for session in sessions) == counts["tcp"] == tracker.totals["packets"]


def test_frames_cut_at_every_byte() -> None:
    frame = seg(SYN, 100, data=b"payload", opt=b"\2\4\5\xb4\1\3\3\7")
    packets = [(1, k, frame[:k], len(frame)) for k in range(len(frame) + 1)]
    tracker = Tracker(rows=True, keep=True)
    for batch in captures.batches(captures.pcap(packets)):
        tracker.feed(batch)
    rows = list(segments(tracker.rows()))
    assert [row.captured for row in rows][-8:] == list(range(8))
    assert {row.payload for row in rows} == {7}
    assert tracker.counts["truncated"] + len(rows) + tracker.counts["not_tcp"] == len(packets)
    assert all("snapped" in bit_names(row.bits) for row in rows[:-1])
    checked(tracker)


def test_absurd_options_do_no_harm() -> None:
    chance = random.Random(3)
    frames = [
        seg(chance.choice([SYN, ACK, SYN | ACK]), 100, 901, opt=bytes(chance.choices(range(256), weights=None, k=40)))
        for _ in range(500)
    ]
    frames += [
        seg(SYN, 1, opt=bytes([kind, size]) + bytes(38)) for kind in (2, 3, 4, 5, 8, 34, 254) for size in range(44)
    ]
    tracker = Tracker(rows=True, keep=True)
    for batch in captures.batches(capture(frames)):
        tracker.feed(batch)
    checked(tracker)


def test_lengths_that_lie() -> None:
    good = bytearray(seg(ACK, 101, 901, b"12345678"))
    short, long, header, none = (bytearray(good) for _ in range(4))
    short[16:18] = struct.pack(">H", 30)
    long[16:18] = struct.pack(">H", 4000)
    header[46] = 0xF0
    none[16:18] = b"\0\0"
    rows, _ = run([bytes(frame) for frame in (good, long, none)])
    assert [row.payload for row in rows] == [8, 8, 8]
    assert ["unchecked_length" in bit_names(row.bits) for row in rows] == [False, True, True]
    tracker = Tracker()
    for batch in captures.batches(capture([bytes(short), bytes(header)])):
        tracker.feed(batch)
    assert tracker.counts["malformed"] == 2
    checked(tracker)


def test_checksums_count_when_asked() -> None:
    frames = [ether(ipv4(captures.tcp(b"right"), 6)), seg(ACK, 1, 1, b"wrong")]
    for checksum, wrong in ((False, 0), (True, 1)):
        tracker = Tracker(checksum=checksum)
        for batch in captures.batches(capture(frames)):
            tracker.feed(batch)
        assert tracker.counts["bad_checksum"] == wrong
        checked(tracker)


def test_fragments_continue_their_segment() -> None:
    whole = seg(FIN | PSH | ACK, 101, 901, bytes(range(100)))[34:]
    parts = [(0, whole[:48], 0x2000), (48, whole[48:96], 0x2000), (96, whole[96:], 0)]
    frames = [ether(ipv4(part, 6, A, B, fragment=flag | at // 8)) for at, part, flag in parts]
    rows, [session] = run([*OPEN, *frames, answer(901, 202)])
    assert [(row.rel_seq, row.payload, row.flags & FIN) for row in rows[3:6]] == [(1, 28, 0), (29, 48, 0), (77, 24, 1)]
    assert all(bit_names(row.bits) == ["fragment"] for row in rows[3:6])
    assert (session.ends[0].unique, session.ends[0].missing, session.states[0]) == (100, 0, "FIN_WAIT_2")
    tracker = Tracker()
    for batch in captures.batches(capture(frames[1:])):
        tracker.feed(batch)
    assert tracker.counts["fragment"] == 2
    checked(tracker)


def test_ipv6_and_other_protocols() -> None:
    six = ether(ipv6(seg(SYN, 100)[34:], 6), 0x86DD)
    tracker = Tracker()
    for batch in captures.batches(capture([six, ether(bytes(30), 0x0806), ether(ipv4(captures.udp(b"x"), 17))])):
        tracker.feed(batch)
    assert tracker.counts["not_tcp"] == 2
    [session] = map(Session.of, tracker.sessions())
    assert (session.version, len(session.client), session.client_text) == (6, 16, "[2001:db8::1]:4000")
    checked(tracker)


def test_rows_do_not_depend_on_how_the_stream_is_cut() -> None:
    content, found = made_at_random(5, talks=10), []
    for size in (1 << 20, 700):
        tracker, rows = Tracker(rows=True, idle_ns=SECOND, linger_ns=SECOND), []
        for batch in captures.batches(content, size):
            tracker.feed(batch)
            rows += [row._replace(at=0, slot=0) for row in segments(tracker.rows())]
            list(tracker.ended())
        found.append(rows)
    assert found[0] == found[1]


@captures.every([path for path in captures.sound(perf=False) if path.startswith(("malformed/", "tcp-odd/"))])
def test_damaged_captures_do_no_harm(path) -> None:
    content = bytearray(captures.content(path))
    chance = random.Random(path)
    for _ in range(3):
        damaged = bytearray(content)
        for at in chance.sample(range(40, len(damaged)), max(1, len(damaged) // 50)):
            damaged[at] = chance.randrange(256)
        tracker = Tracker(rows=True, keep=True, notes=5, sessions=20, idle_ns=SECOND, checksum=chance.random() < 0.5)
        handed = 0
        try:
            for batch in captures.batches(bytes(damaged)):
                tracker.feed(batch)
                handed += sum(Session.of(session).packets for session in tracker.ended())
        except Exception as error:
            assert "packet" in str(error) or "section" in str(error) or "header" in str(error)
        handed += sum(Session.of(session).packets for session in tracker.finish())
        assert handed == tracker.counts["tcp"]
