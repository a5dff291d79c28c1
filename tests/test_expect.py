"""The expectation engine in simulation: two ends over a wire that loses, delays, copies and reorders, a clock that
jumps; and scripts of single segments (tests/expect/*.pkt), as a person would write them down.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from simulation import MS, Wire, ends, recording, run

from pcaptools.core import wire
from pcaptools.core.wire import ACK, FIN, PSH, RST, SYN, Packet, Segment, Seq, packet, read_segment, sound
from pcaptools.engines import play
from pcaptools.engines.dialogue import ANY, CONTINUE, EXACT, LENGTH, WARN, Dialogue, Rules
from pcaptools.engines.exchange import Exchange
from pcaptools.engines.expect import Conversation
from pcaptools.engines.ports import Ports, block, ranges
from pcaptools.engines.roster import Roster
from pcaptools.engines.script import Script, _Flow
from pcaptools.engines.tcp import Connection, Offer
from pcaptools.engines.tcp_states import TRANSITIONS

ASK, TELL = b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nhello"
TWICE = [("C", ASK), ("S", TELL), ("C", b"GET /2 HTTP/1.1\r\n\r\n"), ("S", TELL + b" again")]


# --- numbers and headers


def test_sequence_numbers_wrap() -> None:
    assert Seq(0xFFFFFFFF) + 2 == Seq(1) and Seq(1) - 2 == Seq(0xFFFFFFFF)
    assert Seq(0xFFFFFFF0) < Seq(5) and Seq(5) > Seq(0xFFFFFFF0) and Seq(5) >= Seq(5) <= Seq(6)
    assert Seq(5) - Seq(0xFFFFFFFB) == 10 and Seq(0xFFFFFFFB) - Seq(5) == -10
    assert Seq(0xFFFFFFF0).offset(0x10, 30) == 32
    for near in (0, 2**31 - 5, 2**32 + 7, 5 * 2**32 - 1):
        for step in (-1000, 0, 1, 70000):
            assert Seq(77).offset((77 + near + step) & 0xFFFFFFFF, near) == near + step


def test_segments_survive_the_wire() -> None:
    source = random.Random(3)
    for k in range(500):
        syn = k % 3 == 0
        segment = Segment(
            source.getrandbits(32), source.getrandbits(32), SYN if syn else ACK, source.getrandbits(16),
            source.randbytes(source.choice((0, 1, 7, 1400))),
            mss=1460 if syn else None, wscale=source.choice((None, 0, 14)) if syn else None, sack_ok=syn,
            stamps=source.choice((None, (1, 0xFFFFFFFF))), sacks=() if syn else source.choice(((), ((1, 2), (3, 9)))),
        )  # fmt: skip
        width = source.choice((4, 16))
        near, far = source.randbytes(width), source.randbytes(width)
        frame = wire.Path(b"\0" * 14, near, far, 1, 2).tcp(segment)
        found = packet(frame, 14)
        assert found and (found.source, found.target, found.protocol, found.end) == (near, far, 6, len(frame))
        again = read_segment(frame, found.transport, found.end)
        assert again and all(getattr(again, name) == getattr(segment, name) for name in Segment.__slots__)


def test_hostile_bytes_are_no_packets() -> None:
    frame = wire.Path(b"", b"\1" * 4, b"\2" * 4, 1, 2).tcp(Segment(1, 2, SYN, 3, mss=1460, wscale=7, stamps=(1, 2)))
    source = random.Random(4)
    for _ in range(5000):
        data = bytearray(frame[: source.randrange(len(frame) + 1)])
        for _ in range(source.randrange(4)):
            if data:
                data[source.randrange(len(data))] = source.getrandbits(8)
        found = packet(bytes(data), 0)
        if found:
            read_segment(bytes(data), found.transport, found.end)
            sound(bytes(data), Packet(*found))
    assert packet(b"", 0) is packet(b"\x60" + bytes(20), 0) is None


def test_every_state_can_be_reached_and_left() -> None:
    states = {state for state, _ in TRANSITIONS}
    assert states - set(TRANSITIONS.values()) == set() and set(TRANSITIONS.values()) - states == {"time wait"}


# --- scripts of connections


def test_a_script_has_turns() -> None:
    part = recording(TWICE).part("client")
    assert [(turn.start, turn.end) for turn in part.turns] == [(0, len(TELL)), (len(TELL), 2 * len(TELL) + 6)]
    assert [(send.after, send.turn, send.packet) for send in part.sends] == [(0, 1, 3), (len(TELL), 2, 5)]
    assert part.end.kind == part.their_end.kind == "fin"
    server = recording(TWICE).part("server")
    assert (server.mine, server.theirs) == (part.theirs, part.mine)
    assert [send.turn for send in server.sends] == [2, 3]


def flow_of(*segments: tuple) -> Script:
    """A script of (who, seq, ack, flags, bytes[, bytes on the wire])."""
    flow = _Flow(1, "made", 6, (b"\1\1\1\1", 1), (b"\2\2\2\2", 2))
    for k, (who, seq, ack, flags, data, *size) in enumerate(segments):
        flow.tcp(Segment(seq, ack, flags, 1000, data), who == "S", size[0] if size else len(data), 10**9 + k * MS)
    return Script(flow)


SHAKE = (("C", 10, 0, SYN, b""), ("S", 50, 11, SYN | ACK, b""))


def test_retransmissions_overlaps_and_disorder_are_taken_out() -> None:
    script = flow_of(
        *SHAKE, ("C", 14, 51, ACK, b"def"), ("C", 11, 51, ACK, b"abc"), ("C", 13, 51, ACK, b"cde"),
        ("C", 10, 51, ACK, b"z"), ("S", 51, 17, ACK, b"yes"), ("C", 11, 51, ACK, b"abcdefgh"),
        ("C", 19, 54, ACK | FIN, b""),
    )  # fmt: skip
    assert script.problem == ""
    assert (script.part("client").mine, script.part("client").theirs) == (b"abcdefgh", b"yes")
    assert script.part("client").end[:3] == ("fin", 3, False)


def test_what_our_reset_cut_off_is_not_waited_for() -> None:
    """The recorded client reset in the middle of an answer; what it never acknowledged was captured all the same."""
    said = [("S", 51 + 1000 * k, 14, ACK, b"x" * 1000) for k in range(9)]
    script = flow_of(*SHAKE, ("C", 11, 51, ACK, b"get"), *said, ("C", 14, 5051, RST | ACK, b""))
    for rules in (Rules(EXACT), Rules(EXACT, recorded_pace=True), Rules(LENGTH)):
        pair = ends(script, rules)
        run(pair, Wire(3))
        assert [end.dialogue.outcome and end.dialogue.outcome.ok for end in pair] == [True] * 2
        assert 5000 <= pair[0].dialogue.received_bytes <= 9000


def test_datagrams_without_answers_do_not_wait_for_each_other() -> None:
    flow = _Flow(1, "made", 17, (b"\1\1\1\1", 1), (b"\2\2\2\2", 2))
    flow.udp(b"tell", False, 4, 10**9)
    place = play.Place(b"\1\1\1\1", b"\2\2\2\2", b"", b"", None, 1500, False)
    roster = Roster([Script(flow)], repeat=50, concurrency=1, rate=0, tries=1)
    player = play.Player(roster, place, Rules(), ports=Ports(range(1, 99), random.Random(1)))
    for _ in range(50):
        player.step(7)
        if not player.finished:
            assert player.next_deadline() == 7
    assert player.finished and len(player.frames()) == 50


@pytest.mark.parametrize(
    ("segments", "problem"),
    [
        (
            (*SHAKE, ("C", 11, 51, ACK, b"ab"), ("C", 15, 51, ACK, b"x")),
            "the client's bytes 2 to 3 are not in the capture",
        ),
        ((*SHAKE, ("S", 55, 11, ACK | FIN, b"")), "the server's bytes 0 to 3 are not in the capture"),
        ((*SHAKE, ("C", 11, 51, ACK, b"ab", 100)), "packet 3: payload of the client cut by the snap length"),
        ((("C", 11, 51, ACK, b""),), "no SYN and no payload"),
    ],
)
def test_what_cannot_be_played_is_said(segments: tuple, problem: str) -> None:
    assert flow_of(*segments).problem == problem


# --- whole conversations


LINES = (1, 10, 500, 3000)
RUNS, AT_ONCE = 4000, 250


def any_script(source: random.Random) -> Script:
    """A connection of a few turns, now and then with a large one; it ends in any of the ways there are."""
    lines = [(source.choice("CS"), source.randbytes(source.choice(LINES))) for _ in range(source.randint(1, 6))]
    if source.random() < 0.05:
        lines.append((source.choice("CS"), source.randbytes(30000)))
    ends = source.choice(("CS", "SC", "C", "S", "", "c", "s", "Cs", "Sc"))
    return recording(
        lines, size=source.choice((100, 536, 1460, 5000)), ends=ends, half=source.random() < 0.3,
        mss=source.choice((200, 536, 1460)),
    )  # fmt: skip


def any_offer(source: random.Random) -> Offer | None:
    """What a SYN may say: small windows, and options left out."""
    scale = source.choice((None, 0, 7))
    window = source.choice((500, 2000, 65535)) << (scale or 0)
    one = Offer(source.choice((100, 536, 1460)), scale, source.random() < 0.5, source.random() < 0.5, window)
    return one if source.random() < 0.5 else None


def any_wire(source: random.Random) -> Wire:
    bad = {"loss": source.choice((0.1, 0.3)), "copies": source.choice((0, 0.2)), "jitter": source.choice((0, 10 * MS))}
    delay = source.choice((0, MS, 5 * MS, 150 * MS))
    return Wire(source.getrandbits(32), delay=delay, **(bad if source.random() < 0.7 else {}))


@pytest.mark.parametrize("first", range(0, RUNS, AT_ONCE))
def test_any_conversation_over_any_wire(first: int) -> None:
    for at in range(first, first + AT_ONCE):
        source = random.Random(at)
        script = any_script(source)
        rules = Rules(
            source.choice((EXACT, EXACT, LENGTH)), recorded_pace=source.random() < 0.3, timeout=3_600_000 * MS
        )
        pair = ends(script, rules, at, offer=any_offer(source), retries=30)
        run(pair, any_wire(source))
        for end in pair:
            end.events()
            assert end.dialogue.outcome and end.dialogue.outcome.ok, (at, end.dialogue.outcome)
            part, connection = end.dialogue.part, end.connection
            assert connection.sent_bytes <= len(part.mine) and end.dialogue.received_bytes == len(part.theirs)


def outcome_of(theirs: list, rules: Rules, **wire: float) -> tuple[Dialogue, Dialogue]:
    """TWICE at the client, something else at the server."""
    pair = ends(recording(TWICE), rules, server=recording(theirs), server_rules=Rules(ANY, timeout=5000 * MS))
    run(pair, Wire(1, **wire))
    return pair[0].dialogue, pair[1].dialogue


def changed(turn: int, text: bytes) -> list:
    lines = list(TWICE)
    lines[2 * turn - 1] = ("S", text)
    return lines


EXACTLY = Rules(EXACT, timeout=3000 * MS)


def test_a_changed_byte_is_found() -> None:
    client, _ = outcome_of(changed(2, TELL.replace(b"hello", b"hallo") + b" again"), EXACTLY)
    assert client.outcome and client.outcome.cause == "mismatch"
    assert client.mismatch and client.mismatch[:4] == (2, 20, b"ello again", b"allo again")
    assert (
        client.outcome.text
        == "turn 2, byte 20: the answer differs, expected 656c6c6f20616761696e, got 616c6c6f20616761696e"
    )
    same, _ = outcome_of(changed(2, TELL.replace(b"hello", b"hallo") + b" again"), Rules(LENGTH))
    assert same.outcome and same.outcome.ok
    ignored, _ = outcome_of(
        changed(2, TELL.replace(b"hello", b"hallo") + b" again"), EXACTLY._replace(ignored=((2, 20, 20),))
    )
    assert ignored.outcome and ignored.outcome.ok
    elsewhere, _ = outcome_of(
        changed(2, TELL.replace(b"hello", b"hallo") + b" again"), EXACTLY._replace(ignored=((1, 20, 20),))
    )
    assert elsewhere.mismatch and elsewhere.mismatch.turn == 2


@pytest.mark.parametrize("expect", [EXACT, LENGTH])
@pytest.mark.parametrize("turn", [1, 2])
def test_a_longer_answer_is_found(expect: str, turn: int) -> None:
    size = len(TWICE[2 * turn - 1][1])
    client, _ = outcome_of(changed(turn, TWICE[2 * turn - 1][1] + b"MORE"), Rules(expect, timeout=3000 * MS))
    assert client.outcome and client.outcome.cause == "mismatch" and client.mismatch
    assert (client.mismatch.turn, client.mismatch.offset, client.mismatch.what) == (turn, size, "is longer")


def moved(text: bytes, *, later: bool) -> list:
    """TWICE, with `text` more in the first answer and as much less in the second; or the other way round."""
    first, second = TWICE[1][1], TWICE[3][1]
    if later:
        return [TWICE[0], ("S", first[: -len(text)]), TWICE[2], ("S", text + second)]
    return [TWICE[0], ("S", first + text), TWICE[2], ("S", second[len(text) :])]


@pytest.mark.parametrize("size", [100, 1460])
def test_errors_that_make_up_for_each_other_are_found(size: int) -> None:
    for loss in (0, 0.2):
        pair = ends(
            recording(TWICE), Rules(LENGTH, timeout=9000 * MS),
            server=recording(moved(b"MORE", later=False), size=size), server_rules=Rules(ANY, timeout=9000 * MS),
        )  # fmt: skip
        run(pair, Wire(3, loss=loss))
        found = pair[0].dialogue.mismatch
        assert found and (found.turn, found.offset, found.got, found.what) == (1, len(TELL), b"MORE", "is longer")
    client, _ = outcome_of(moved(b"MORE", later=True), Rules(LENGTH, timeout=3000 * MS))
    assert client.mismatch and client.mismatch[:2] == (1, len(TELL) - 4) and client.mismatch.what == "is shorter"


def at_once(server: bytes, asked: bytes = b"two", acknowledged: int = 21, flags: int = ACK | PSH) -> Dialogue:
    """A client that asks twice; the first bytes of the server's second answer acknowledged so much of the question.
    What the server says now comes in one segment, before the second question."""
    script = flow_of(
        *SHAKE, ("C", 11, 51, ACK | PSH, b"ask-number"), ("S", 51, 21, flags, b"first!"),
        ("C", 21, 57, ACK | PSH, asked), ("S", 57, acknowledged, ACK | PSH, b"second"),
    )  # fmt: skip
    dialogue = Dialogue(script.part("client"), Rules(LENGTH, timeout=3000 * MS))
    dialogue.opened(0)
    dialogue.received(server, True, 1, 10)
    return dialogue


def test_a_host_that_does_not_wait_may_send_answers_together() -> None:
    assert not at_once(b"first!").mismatch
    assert not at_once(b"1st...second", acknowledged=24).mismatch, "what it said then comes early"
    early = at_once(b"1st...SECOND", acknowledged=24)
    assert early.mismatch and early.mismatch[:2] == (1, 6) and early.outcome and not early.outcome.ok
    assert not at_once(b"1st...SECOND", acknowledged=21).mismatch, "the recorded server had not heard the question"
    assert not at_once(b"1st...SECOND", acknowledged=24, flags=ACK).mismatch, "the answer went on"


@pytest.mark.parametrize("expect", [EXACT, LENGTH])
def test_a_shorter_answer_is_found(expect: str) -> None:
    client, _ = outcome_of(changed(1, TELL[:-2]), Rules(expect, timeout=3000 * MS))
    assert client.outcome and client.outcome.cause == "no answer"
    assert client.outcome.text.startswith(f"turn 1: {len(TELL) - 2} of {len(TELL)} bytes of the answer (packet 4)")
    assert client.mismatch and client.mismatch[:3] == (1, len(TELL) - 2, b"lo")


def test_any_answer_will_do() -> None:
    for text in (b"x", TELL * 400):
        for loss in (0, 0.1):
            client, _ = outcome_of(changed(1, text), Rules(ANY, timeout=60_000 * MS), loss=loss)
            assert client.outcome and client.outcome.ok


def test_an_expression_must_match() -> None:
    fits, _ = outcome_of(
        changed(1, b"HTTP/1.1 204 Fine"), Rules(ANY, regexes=((1, re.compile(rb"^HTTP/1\.\d 2\d\d")),))
    )
    assert fits.outcome and fits.outcome.ok
    client, _ = outcome_of(changed(1, b"HTTP/1.1 500 No"), Rules(ANY, regexes=((None, re.compile(rb" 2\d\d")),)))
    assert client.mismatch and client.mismatch.turn == 1 and "does not match" in client.mismatch.what


def test_a_mismatch_may_be_passed_over() -> None:
    for what in (WARN, CONTINUE):
        client, _ = outcome_of(changed(1, TELL[:-1] + b"X"), EXACTLY._replace(on_mismatch=what))
        assert client.outcome and client.outcome.ok and client.mismatch and client.mismatch.offset == len(TELL) - 1


def test_strict_means_recorded_segments() -> None:
    lines = [("C", ASK), ("S", bytes(3000))]
    for size, ok in ((1000, True), (500, False)):
        pair = ends(recording(lines), Rules(strict=True), server=recording(lines, size=size), server_rules=Rules())
        run(pair, Wire(1))
        assert pair[0].dialogue.outcome and pair[0].dialogue.outcome.ok is ok
    assert pair[0].dialogue.mismatch and "500 bytes where 1000 were recorded" in pair[0].dialogue.mismatch.what


def test_think_times_are_kept_when_asked() -> None:
    script = recording([("C", b"a"), ("S", b"b"), ("C", b"c"), ("S", b"d")], gap=700 * MS)
    fast, slow = (run(ends(script, Rules(recorded_pace=pace)), Wire(1, delay=MS)) for pace in (False, True))
    assert fast < 100 * MS and slow > 1400 * MS


def test_an_early_end_is_told() -> None:
    client, _ = outcome_of(TWICE[:2], EXACTLY)
    assert client.outcome and client.outcome.cause == "closed early" and "turn 2: 0 of" in client.outcome.text


def test_silence_is_told() -> None:
    client = ends(recording(TWICE))[0]
    silent = Conversation(recording(TWICE).part("server"), Rules(), Connection(1), passive=True)
    silent.receive = lambda segment, now: None  # type: ignore[method-assign]
    run((client, silent), Wire(1))
    assert client.dialogue.outcome and client.dialogue.outcome.text.startswith("no answer to packet 1 after ")


def test_datagrams_are_asked_for_again() -> None:
    flow = _Flow(1, "made", 17, (b"\1\1\1\1", 1), (b"\2\2\2\2", 53))
    for k, (who, data) in enumerate((("C", b"ask"), ("S", b"answer"), ("C", b"more"), ("S", b"and more"))):
        flow.udp(data, who == "S", len(data), 10**9 + k)
    for lost, again, ok in ((0, 0, True), (1, 1, True), (9, 2, False)):
        play = Exchange(Script(flow).part("client"), Rules(EXACT, timeout=60_000 * MS))
        play.started(0)
        now = said = 0
        while not play.done:
            outgoing = play.datagrams_to_send()
            for data in outgoing:
                said += 1
                if said > lost:
                    play.receive({b"ask": b"answer", b"more": b"and more"}[data], now)
            deadline = play.next_deadline()
            if deadline is not None and not outgoing:
                now = max(now, deadline)
                play.timeout(now)
        assert (play.dialogue.outcome.ok, play.retransmitted) == (ok, again)  # type: ignore[union-attr]


# --- many flows


def served(*scripts: Script) -> play.Player:
    """A server at 10.0.0.2 that plays these."""
    place = play.Place(b"\x0a\0\0\2", None, b"", b"", None, 1500, False)
    roster = Roster(scripts, repeat=1, concurrency=1, rate=0, tries=1)
    return play.Player(roster, place, Rules(), role="server", scripts=scripts, seed=1)


def heard(player: play.Player, port: int, *segments: Segment) -> list[Segment]:
    """What it answers to a client."""
    path = wire.Path(b"", b"\x0a\0\0\1", b"\x0a\0\0\2", 40000, port)
    for segment in segments:
        player.receive(path.tcp(segment), True, 1)
    player.step(1)
    frames = player.frames()
    return [one for frame in frames if (one := read_segment(frame, 20, len(frame)))]


def test_whoever_only_knocks_gets_no_flow() -> None:
    player = served(recording(TWICE))
    assert [one.flags for one in heard(player, 80, Segment(9, 0, SYN, 1000, mss=1460))] == [SYN | ACK]
    heard(player, 80, Segment(10, 0, RST, 0))
    assert player.roster.waiting and not player.roster.results
    assert [one.flags for one in heard(player, 80, Segment(900, 0, SYN, 1000, mss=1460))] == [SYN | ACK]


def test_a_client_gets_a_flow_of_its_port() -> None:
    flows = [recording(TWICE), recording([("S", b"220 hello\r\n")])]
    flows[1].server = (flows[1].server[0], 25)
    player = served(*flows)
    (answer,) = heard(player, 25, Segment(9, 0, SYN, 1000, mss=1460))
    greeting = heard(player, 25, Segment(10, answer.seq + 1, ACK, 1000))
    assert b"".join(one.payload for one in greeting) == b"220 hello\r\n"
    assert heard(player, 443, Segment(9, 0, SYN, 1000)) == []


def test_ports_are_few_ranges() -> None:
    assert ranges([5, 3, 4, 9, 3]) == [(3, 5), (9, 9)] and ranges([]) == []
    assert ranges(range(1, 999, 2)) == [(1, 997)], "too many to look at for every packet"
    source = random.Random(1)
    for size in (1, 1000, 16384, 99999):
        some = block("random", size, source)
        assert 49152 <= some[0] <= some[-1] <= 65535 and len(some) == min(size, 16384)
    assert block(65000, 1000, source) == range(65000, 65536)


def test_a_datagram_chooses_the_exchange() -> None:
    parts = []
    for asked, answer in ((b"ask", b"answer"), (b"other", b"another answer")):
        flow = _Flow(1, "made", 17, (b"\1\1\1\1", 1), (b"\2\2\2\2", 53))
        flow.udp(asked, False, len(asked), 10**9)
        flow.udp(answer, True, len(answer), 10**9 + 1)
        parts.append(Script(flow).part("server"))
    exchange = Exchange(parts[0], Rules(EXACT), passive=True)
    exchange.choose = lambda data: parts[data == b"other"]
    exchange.started(0)
    exchange.receive(b"other", 1)
    assert exchange.datagrams_to_send() == [b"another answer"] and not exchange.dialogue.mismatch
    assert [(event.kind, event.packet) for event in exchange.events()][:2] == [("received", 1), ("sent", 2)]


# --- single segments

LETTERS = {"S": SYN, ".": ACK, "P": PSH, "F": FIN, "R": RST}
STEP = re.compile(
    r"^([\d.]+)\s+([<>])\s+([SFRP.]+)\s+(\d+):(\d+)\((\d+)\)(?:\s+ack (\d+))?(?:\s+win (\d+))?(?:\s+<(.*)>)?$"
)


class Player:
    """Plays a .pkt file at a connection: `<` is what arrives, `>` what must go out at that time, and nothing else.

    Lines are `time < or > flags first:last(bytes) [ack n] [win n] [<options>]`, numbers relative to the two initial
    sequence numbers; or `time call`: open, listen, send N, close, abort, state NAME, failure NAME.
    """

    def __init__(self, text: str) -> None:
        self.end = Connection(0xFFFFFFFE, Offer(1000, None, "sack" in text, False, 65535), retries=3)
        self.now = 0
        self.out: list[Segment] = []

    def collect(self) -> None:
        self.out += self.end.segments_to_send(self.now)

    def until(self, time: int) -> None:
        while (due := self.end.next_deadline()) is not None and due <= time:
            self.now = due
            self.end.timeout(due)
            self.collect()
        self.now = time

    def step(self, line: str) -> None:
        time, _, rest = line.partition(" ")
        self.until(round(float(time) * 1000) * MS)
        match = STEP.match(line)
        if not match:
            self.call(rest.split())
        elif match[2] == "<":
            assert not self.out, f"before {line}: {self.out}"
            self.end.receive(self.segment(match, 5000, 0xFFFFFFFE), self.now)
            self.collect()
        else:
            assert self.out, f"nothing goes out: {line}"
            self.check(self.out.pop(0), self.segment(match, 0xFFFFFFFE, 5000), line)

    def call(self, words: list[str]) -> None:
        if words[0] == "state":
            assert self.end.state == " ".join(words[1:])
        elif words[0] == "failure":
            assert self.end.failure == " ".join(words[1:])
        elif words[0] == "send":
            self.end.send(bytes(int(words[1])))
        else:
            getattr(self.end, words[0])()
        self.collect()

    @staticmethod
    def segment(match: re.Match, near: int, far: int) -> Segment:
        flags = sum(LETTERS[letter] for letter in match[3])
        segment = Segment((near + int(match[4])) & 0xFFFFFFFF, 0, flags, int(match[8] or 60000), bytes(int(match[6])))
        if match[7]:
            segment.ack = (far + int(match[7])) & 0xFFFFFFFF
        for option in (match[9] or "").split(",") if match[9] else ():
            name, _, value = option.strip().partition(" ")
            if name == "mss":
                segment.mss = int(value)
            elif name == "sackOK":
                segment.sack_ok = True
            elif name == "sack":
                edges = [tuple((far + int(n)) & 0xFFFFFFFF for n in block.split(":")) for block in value.split()]
                segment.sacks = tuple(edges)  # type: ignore[assignment]
        return segment

    @staticmethod
    def check(got: Segment, wanted: Segment, line: str) -> None:
        for name in ("flags", "seq", "payload"):
            assert getattr(got, name) == getattr(wanted, name), f"{line}: {got}"
        if wanted.flags & ACK:
            assert got.ack == wanted.ack, f"{line}: {got}"
        assert got.sacks == wanted.sacks, line


SCRIPTS = sorted((Path(__file__).parent / "expect").glob("*.pkt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_segment_by_segment(path: Path) -> None:
    text = path.read_text()
    player = Player(text)
    for line in text.splitlines():
        if line.split("#")[0].strip():
            player.step(line.split("#")[0].strip())
    assert not player.out, player.out
