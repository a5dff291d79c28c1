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
from pcaptools.engines.dialogue import ANY, CONTINUE, EXACT, LENGTH, WARN, Dialogue, Rules
from pcaptools.engines.exchange import Exchange
from pcaptools.engines.expect import Conversation
from pcaptools.engines.script import Script, _Flow
from pcaptools.engines.tcp import TRANSITIONS, Connection, Offer

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


@pytest.mark.parametrize("seed", range(40))
def test_any_conversation_over_any_wire(seed: int) -> None:
    for at in range(seed * 25, seed * 25 + 25):
        source = random.Random(at)
        lines = [
            (source.choice("CS"), source.randbytes(source.choice((1, 10, 500, 3000, 20000))))
            for _ in range(source.randint(1, 8))
        ]
        script = recording(
            lines, size=source.choice((100, 536, 1460, 5000)), ends=source.choice(("CS", "SC", "C", "S", "", "c", "s"))
        )
        wire = Wire(
            at, loss=source.choice((0, 0, 0.1, 0.3)), copies=source.choice((0, 0.2)), jitter=source.choice((0, 10 * MS))
        )
        rules = Rules(EXACT, recorded_pace=source.random() < 0.3, timeout=600_000 * MS)
        pair = ends(script, rules, at)
        run(pair, wire)
        for end in pair:
            assert end.dialogue.outcome and end.dialogue.outcome.ok, (at, end.dialogue.outcome)
        client, server = (end.connection for end in pair)
        assert client.sent_bytes <= len(script.part("client").mine) and server.sent_bytes <= len(
            script.part("server").mine
        )


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
