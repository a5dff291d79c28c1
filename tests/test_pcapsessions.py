"""pcapsessions: what is shown and how, times, triggers, JSON and tables; on segments made by hand, and with tshark."""

from __future__ import annotations

import datetime
import io
import json
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import captures
import pytest

from pcaptools.commands import pcapsessions
from pcaptools.core import times
from pcaptools.core.wire import ACK, FIN, PSH, RST, SYN
from pcaptools.engines.sessions_report import visible
from pcaptools.engines.tcp_options import options_text

COMMAND = Path(__file__).resolve().parent.parent / "bin" / "pcapsessions"
CLIENT, SERVER = captures.SOURCE4, captures.TARGET4
MS = 1_000_000

Step = tuple[int, str, int, int, int, bytes]
"""ms, who (C or S), flags, sequence number, acknowledgement number, payload."""


def frame(who: str, flags: int, seq: int, ack: int, data: bytes = b"", port: int = 40000, window: int = 8192) -> bytes:
    source, target = (CLIENT, SERVER) if who == "C" else (SERVER, CLIENT)
    ports = (port, 80) if who == "C" else (80, port)
    head = struct.pack(">HHIIBBHHH", *ports, seq, ack, 0x50, flags, window, 0, 0)
    return captures.ether(captures.ipv4(head + data, 6, source, target))


def capture(steps: Sequence[Step], **options: Any) -> list[tuple]:
    return [(1000 + ms // 1000, ms % 1000 * 1000, f := frame(*rest, **options), len(f)) for ms, *rest in steps]


OPENING: list[Step] = [
    (0, "C", SYN, 100, 0, b""),
    (10, "S", SYN | ACK, 500, 101, b""),
    (20, "C", ACK, 101, 501, b""),
]
CLOSE: list[Step] = [
    (9000, "C", FIN | ACK, 111, 511, b""),
    (9010, "S", FIN | ACK, 511, 112, b""),
    (9020, "C", ACK, 112, 512, b""),
]
TALK: list[Step] = [
    (30, "C", PSH | ACK, 101, 501, b"0123456789"),
    (40, "S", PSH | ACK, 501, 111, b"abcdefghij"),
    (50, "C", ACK, 111, 511, b""),
]
WELL = [*OPENING, *TALK, *CLOSE]
AGAIN = [*OPENING, TALK[0], (1530, *TALK[0][1:]), (1540, *TALK[1][1:]), (1550, *TALK[2][1:]), *CLOSE]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command on packets; returns what it prints, as lines."""

    def runs(packets: Sequence[Any], *arguments: str, status: int = 0, error: str = "") -> list[str]:
        path = tmp_path / "in.pcap"
        path.write_bytes(captures.pcap(packets))
        zone = [] if "--zone" in arguments else ["--zone", "UTC"]
        assert pcapsessions.main(["--quiet", *zone, *arguments, str(path)]) == status
        said = capsys.readouterr()
        assert error in said.err if error else said.err == ""
        return said.out.splitlines()

    return runs


# --- what is shown ------------------------------------------------------------------------------------------------


def test_nothing_where_all_is_well(run: Any) -> None:
    assert run(capture(WELL)) == []


def test_a_retransmission_and_what_it_repeats(run: Any) -> None:
    lines = run(capture(AGAIN))
    assert lines[0].endswith("Total 10 segments, 570 bytes !! retransmission after 1.500 s")
    assert [line[5:9] for line in lines[1:]] == ["0000", "0001", "0002", "0003", "0004", "****", "0007", "0008", "0009"]
    assert "retransmission of 0003 after 1.500 s" in lines[5]
    assert lines[6].split() == ["0000:****", "|", "|", "(2", "segments)"]
    assert run(capture(AGAIN), "-r", "1600") == []
    assert run(capture(AGAIN), "-r", "0") == []
    assert run(capture(AGAIN), "-r", "1500.000") != []


TRIGGERS = [
    (["--long-connect", "9019"], WELL, "lasts 9.020 s"),
    (["-T", "9020"], WELL, None),
    (["--long-delay", "8949"], WELL, "pause of 8.950 s"),
    (["-t", "8950"], WELL, None),
    (["--slow-handshake", "20"], WELL, "handshake took 0.020 s"),
    (["--slow-handshake", "21"], WELL, None),
    (["--rtt", "10"], WELL, "RTT of the client up to 0.010 s, RTT of the server up to 0.010 s"),
    (["--rtt", "11"], WELL, None),
    ([], OPENING[:1], "no reply to the SYN"),
    (["--no-reply", "0"], OPENING[:1], None),
    ([], [OPENING[0], (1000, *OPENING[0][1:])], "no reply to 2 SYNs, SYN sent again after 1.000 s"),
    (["--syn", "0", "--no-reply", "0", "-r", "0"], [OPENING[0], (1000, *OPENING[0][1:])], None),
    ([], [OPENING[0], (5, "S", RST | ACK, 0, 101, b"")], "refused by the server"),
    (["-R", "0"], [OPENING[0], (5, "S", RST | ACK, 0, 101, b"")], None),
    ([], [*OPENING, *TALK, (60, "S", RST | ACK, 511, 111, b"")], "reset after data by the server"),
    ([], [*WELL[:7], (9005, "S", RST | ACK, 511, 112, b"")], None),
    (["--rst", "2"], [*WELL[:7], (9005, "S", RST | ACK, 511, 112, b"")], "reset after FIN by the server"),
    ([], WELL[:5], None),
    (["--incomplete"], WELL[:5], "end not seen"),
    (["--incomplete"], WELL[3:], "begin not seen"),
    (["--incomplete"], WELL, None),
    ([], TALK[1:2], "one direction only"),
]


@pytest.mark.parametrize(("options", "steps", "reason"), TRIGGERS)
def test_triggers(run: Any, options: list[str], steps: list[Step], reason: str | None) -> None:
    lines = run(capture(steps), *options)
    assert (lines[0].rpartition(" !! ")[2] if lines else None) == reason


def test_a_zero_window_and_a_fragment(run: Any) -> None:
    closed = frame("S", ACK, 511, 111, window=0)
    packets = [*capture(WELL[:6]), (1001, 0, closed, len(closed)), *capture(CLOSE)]
    assert run(packets)[0].endswith("zero window of the server")
    assert run(packets, "--zero-window", "0") == []
    part = bytearray(frame("C", PSH | ACK, 111, 511, b"x" * 24))
    part[14 + 6] |= 0x20  # more fragments follow
    packets = [*capture(WELL[:6]), (1001, 0, bytes(part), len(part))]
    assert any("in fragments" in line for line in run(packets)[:1])
    assert run(packets, "-F", "0") == []


def test_switches_without_a_number_mean_one() -> None:
    words = ["--incomplete", "--syn", "0", "--color", "x.pcap", "-qq", "--plot", "3", "a.svg", "--", "--syn"]
    found = pcapsessions.prepare(words)
    assert found == ["--incomplete=1", "--syn", "0", "--color=1", "x.pcap", "-q", "--plot=3 a.svg", "--", "--syn"]


def test_context_lines_and_everything(run: Any) -> None:
    numbers = [line[5:9] for line in run(capture(AGAIN), "-v", "1")[1:]]
    assert numbers == ["0000", "0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009"]
    assert len(run(capture(WELL), "--all")) == 1 + len(WELL)


def test_a_session_of_many_retransmissions_stays_short(run: Any) -> None:
    steps = [*OPENING, *((2000 * (k + 1), *TALK[0][1:]) for k in range(500))]
    lines = run(capture(steps))
    assert "499 retransmissions up to 2.000 s" in lines[0]
    assert len(lines) < 60
    assert re.search(r"\(\d+ segments, \d+ sent again\)", "\n".join(lines))
    assert len(run(capture(steps), "--lines", "0")) == 1 + len(steps)


def test_sessions_that_are_alike_are_counted(run: Any) -> None:
    packets = [packet for port in range(1000, 1050) for packet in capture(OPENING[:1], port=port)]
    lines = run(packets)
    assert len([line for line in lines if "!!" in line]) == 10
    assert lines[-1] == "and 40 more sessions with 10.0.0.2:80: no reply (--similar 0: all)"
    assert len([line for line in run(packets, "--similar", "0") if "!!" in line]) == 50


def test_limits_report_and_forget(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    packets = [packet for port in range(1000, 1050) for packet in capture(OPENING[:1], port=port)]
    assert len([line for line in run(packets, "--similar", "0", "-L", "7") if "!!" in line]) == 50
    lines = run(capture([*AGAIN[:5], *(((3000 + k, "C", ACK, 111, 511, b"")) for k in range(20))]), "-l", "4", "--all")
    assert "forgotten" in lines[1]


# --- how it is written --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--all"], ["-v", "2"], ["--live"], ["-m", "http"], ["--relative"]])
def test_eighty_columns(run: Any, options: list[str]) -> None:
    for steps in (AGAIN, OPENING[:1], [*OPENING, *TALK, (60, "S", RST | ACK, 511, 111, b"")]):
        assert max(map(len, run(capture(steps), "-q", *options)), default=0) <= 80


def test_times(run: Any) -> None:
    def first(*options: str) -> str:
        return str(run(capture(AGAIN), *options)[1])

    assert first()[10:22] == "00:16:40.000"
    assert first("--date", "--precision", "us")[10:36] == "1970-01-01 00:16:40.000000"
    assert first("--zone", "+05:30")[10:22] == "05:46:40.000"
    assert run(capture(AGAIN), "--relative", "--precision", "ns")[5].split()[1] == "1.530000000"


def test_the_clock_agrees_with_datetime() -> None:
    source = random.Random(4)
    for zone in (datetime.timezone.utc, times.parse_zone("-03:30"), times.parse_zone("Europe/Berlin")):
        for digits in (0, 3, 6, 9):
            clock = times.Clock(digits, zone, date=True)
            for ns in (0, -1, 1_700_000_000_999_999_999, *(source.randrange(1 << 62) for _ in range(50))):
                moment = datetime.datetime.fromtimestamp(ns // 10**9, zone)
                wanted = f"{moment:%Y-%m-%d %H:%M:%S}.{ns % 10**9:09}"[: 20 + digits - (not digits)]
                assert (clock(ns), len(clock(ns))) == (wanted, clock.width)
    assert times.seconds(-1_234_567, 3) == "-0.001" and times.seconds(-1234, 3) == "0.000"


def test_what_the_network_says_drives_no_terminal(run: Any) -> None:
    assert visible("a\x1b[31m\x07\x9b\x7f") == r"a\x1b[31m\x07\x9b\x7f"
    request = b"GET /\x1b]0;x\x07 HTTP/1.1\r\nHost: a\r\n\r\n"
    steps = [*OPENING, (30, "C", PSH | ACK, 101, 501, request)]
    for options in (["-m", "http:%:%", "--all"], ["--follow", "0"], ["-m", "http", "--json"]):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\n".join(run(capture(steps), *options)))


def test_options_in_words() -> None:
    syn = bytes.fromhex("020405b4 0402 080a0f70 0a5a00000000 01 030307")
    assert options_text(syn) == "mss=1460, sackOK, timestamp 259000922 0, wscale=7"
    assert options_text(bytes.fromhex("0101050a0000000100000002")) == "sack 00000001-00000002"
    assert options_text(bytes.fromhex("2206aabbccdd")) == "fast-open=aabbccdd"
    source = random.Random(1)
    for _ in range(500):
        options_text(source.randbytes(source.randrange(41)))


# --- for programs -------------------------------------------------------------------------------------------------


def test_json(run: Any) -> None:
    (one,) = map(json.loads, run(capture(AGAIN), "--json"))
    assert (one["client"], one["server"]["port"]) == ({"address": "10.0.0.1", "port": 40000}, 80)
    assert (one["begin"], one["duration_ns"]) == ("1970-01-01T00:16:40.000000000Z", 9020 * MS)
    assert (one["start"], one["close_reason"], one["closed_by"], one["complete"]) == ("syn", "fin", "client", True)
    assert one["reasons"] == ["retransmission after 1.500 s"]
    assert (one["handshake_ns"], one["packets"]) == (20 * MS, len(AGAIN))
    client = one["sent"]["client"]
    assert (client["payload_bytes"], client["unique_bytes"], client["repeated_bytes"]) == (20, 10, 10)
    assert client["retransmission_rate"] == 0.5
    assert one["sent"]["server"]["rtt"]["min_ns"] == 10 * MS
    assert [(a["packet"], a["from"]) for a in one["anomalies"] if "retransmission" in a["what"]] == [(5, "client")]
    assert len(run(capture(WELL), "--json")) == 1
    assert run(capture(WELL), "--json", "--rst", "1") == []


def test_the_table_of_figures(run: Any) -> None:
    lines = run(capture(AGAIN), "--summary")
    rows = {line[2:32].strip(): line[32:].split() for line in lines}
    assert lines[0] == "session 0: 10.0.0.1:40000 == 10.0.0.2:80"
    assert (rows["packets"], rows["data bytes, sent again"]) == (["7", "3"], ["10", "0"])
    assert rows["RTT, smallest, s"] == ["0.010000", "0.010000"]
    assert max(map(len, lines)) <= 80


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
@pytest.mark.parametrize("name", ["mixed/PcapPlusPlus__many-protocols.pcap", "http/zeek__methods.pcap"])
def test_sessions_are_numbered_as_tshark_does(name: str) -> None:
    captures.content(name)  # skips without it
    path = str(captures.ROOT / name)
    fields = ["tcp.stream", "ip.src", "tcp.srcport", "ip.dst", "tcp.dstport", "ipv6.src", "ipv6.dst"]
    command = ["tshark", "-n", "-r", path, "-Y", "tcp", "-T", "fields", *(w for f in fields for w in ("-e", f))]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    wanted: dict[int, set] = {}
    for line in said.splitlines():
        stream, *ends = line.split("\t")
        if "," in line:
            continue
        source, sport, target, dport, source6, target6 = ends
        wanted[int(stream)] = {(source or source6, int(sport)), (target or target6, int(dport))}
    ours = subprocess.run([sys.executable, COMMAND, "--json", path], capture_output=True, check=True, timeout=60).stdout
    for line in ours.splitlines():
        one = json.loads(line)
        if one["session"] in wanted:
            ends = {(one[side]["address"], one[side]["port"]) for side in ("client", "server")}
            assert ends == wanted.pop(one["session"])
    assert not wanted


# --- hostile input, and how it ends -------------------------------------------------------------------------------


def test_garbage_and_cuts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = random.Random(9)
    whole = captures.pcap(capture(AGAIN))
    path = tmp_path / "in.pcap"
    for size in range(24, len(whole), 23):
        path.write_bytes(whole[:size])
        assert pcapsessions.main([str(path), "--all", "-q", "-m", "http"]) in (0, 1, 2)
    for _ in range(40):
        packets = [bytearray(f) for _, _, f, _ in capture(AGAIN)]
        for packet in packets:
            for _ in range(source.randrange(4)):
                packet[source.randrange(14, len(packet))] = source.randrange(256)
        path.write_bytes(captures.pcap([bytes(packet) for packet in packets]))
        for options in (["--all"], ["--live"], ["--json", "-m", "http"], ["--summary"]):
            assert pcapsessions.main([str(path), *options]) == 0
    capsys.readouterr()


def test_a_pipe_is_told_of_as_it_comes() -> None:
    """Long after the close of a session that went wrong, with the pipe still open."""
    process = subprocess.Popen(
        [sys.executable, COMMAND, "--json"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin and process.stdout
    later = [(120_000, *step[1:]) for step in OPENING[:1]]
    process.stdin.write(captures.pcap([*capture(WELL), *capture(later, port=9)]))
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["client"]["port"] == 40000
    process.send_signal(signal.SIGUSR1)
    assert json.loads(process.stdout.readline())["client"]["port"] == 9
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, json.loads(out)["client"]["port"]) == (130, 9)


def test_a_closed_pipe_ends_it_silently(tmp_path: Path) -> None:
    path = tmp_path / "in.pcap"
    path.write_bytes(captures.pcap([p for port in range(1000, 6000) for p in capture(OPENING[:1], port=port)]))
    process = subprocess.Popen(
        [sys.executable, COMMAND, "--all", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout and process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(10) == -signal.SIGPIPE


def test_a_flood_fits_in_the_limit(tmp_path: Path) -> None:
    """SYNs of 30 000 sources with room for 1000 sessions: each is told of once."""
    out = io.BytesIO(captures.pcap_header())
    out.seek(0, 2)
    record = bytearray(frame("C", SYN, 1, 0))
    for k in range(30_000):
        record[26:30] = struct.pack(">I", 0x0B000000 + k)
        out.write(struct.pack("<IIII", 1000 + k // 1000, k % 1000 * 1000, len(record), len(record)) + record)
    path = tmp_path / "in.pcap"
    path.write_bytes(out.getvalue())
    command = [sys.executable, str(COMMAND), "-L", "1000", "-q", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "and 29990 more sessions with 10.0.0.2:80: no reply" in result.stdout.replace("\n    ", " ")
    assert "sessions 30000" in result.stderr and "29000 over the limit" in result.stderr
