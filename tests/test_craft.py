"""Conversations and hex dumps: tshark reassembles exactly what was given; text2pcap makes the same of a dump."""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
import sys
from fractions import Fraction
from ipaddress import ip_address
from itertools import product
from pathlib import Path

import dpkt
import pytest
from captures import checksum, tool

from pcaptools.engines import craft, generate, hexdump, linklayer
from pcaptools.engines.conversation import MS, OPTIONS, Conversation, Settings, Turn
from pcaptools.engines.conversation_host import ACK

BIN = Path(__file__).resolve().parent.parent / "bin" / "pcapgen"
CHECKS = ["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]
WRONG = "ip.checksum.status == 0 or tcp.checksum.status == 0 or udp.checksum.status == 0 or _ws.malformed"
TEXT = b"the quick brown fox jumps over the lazy dog\n"
UTC = {**os.environ, "TZ": "UTC", "LC_ALL": "C"}
ENDS = ("--client", "10.0.0.1", "--server", "10.0.0.2:7")


def run(*arguments: str | Path, status: int = 0, **options) -> subprocess.CompletedProcess[bytes]:
    result = subprocess.run([sys.executable, BIN, *arguments], capture_output=True, timeout=60, **options)
    assert result.returncode == status, result.stderr
    return result


def tshark(path: Path, *arguments: str) -> list[str]:
    argv = [tool("tshark"), "-r", path, *CHECKS, *arguments]
    told = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60, env=UTC)
    return told.stdout.splitlines()


def followed(path: Path, proto: str = "tcp") -> list[bytes]:
    """What client and server said, as tshark reassembles it."""
    said = [b"", b""]
    for line in tshark(path, "-q", "-z", f"follow,{proto},raw,0"):
        if re.fullmatch(r"\t?[0-9a-f]+", line):
            said[line.startswith("\t")] += bytes.fromhex(line.strip())
    return said


def texts(directory: Path, sizes: list[int]) -> list[bytes]:
    """Files 0, 1, ... of text of so many bytes."""
    found = [(b"%d %d " % (size, number) + TEXT * (size // len(TEXT) + 1))[:size] for number, size in enumerate(sizes)]
    for number, data in enumerate(found):
        (directory / str(number)).write_bytes(data)
    return found


# Conversations


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--loss 4 --reorder 8",
        "--loss 20 --reorder 20 --seed 3",
        "--loss 5 --reorder 30 --tcp-options mss,sack,wscale,timestamps --window 300000 --seed 4",
        "--tcp-options none --window 1000 --mss 400",
        "--mtu 9000 --rtt 0 --vlan 4094 --pad",
        "--rtt 150.5 --mss 48 --loss 2 -F pcapng",
        "-l LINUX_SLL --loss 1",
        "-l NULL",
    ],
)
@pytest.mark.parametrize("ends", [ENDS, ("--client", "[2001:db8::1]:4000", "--server", "[2001:db8::2]:7")])
def test_tshark_reassembles_what_was_given(arguments: str, ends: tuple[str, ...], tmp_path: Path) -> None:
    given = texts(tmp_path, [120, 30_000, 5_000, 1, 1460])
    options = [f"--{'response' if number % 2 else 'request'}={tmp_path / str(number)}" for number in range(5)]
    path = tmp_path / "out.pcap"
    run("conversation", *ends, *options, "-w", path, *arguments.split())
    assert followed(path) == [given[0] + given[2] + given[4], given[1] + given[3]]
    assert tshark(path, "-Y", WRONG) == []
    flags = tshark(path, "-T", "fields", "-e", "tcp.flags", "-e", "tcp.completeness")
    assert flags[0].startswith("0x0002")
    assert int(flags[-1].split("\t")[1]) & 31 == 31  # SYN, SYN-ACK, ACK, data, FIN
    if "loss" not in arguments:
        assert tshark(path, "-Y", "tcp.analysis.retransmission or tcp.analysis.lost_segment") == []
    elif "reorder" in arguments:
        assert tshark(path, "-Y", "tcp.analysis.retransmission")


def test_the_options_stand_in_the_handshake(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    fields = ("tcp.options.mss_val", "tcp.options.wscale.shift", "tcp.options.timestamp.tsval", "tcp.options.sack_perm")
    for wanted in (["none"], ["mss"], ["mss", "sack", "wscale", "timestamps"], ["timestamps"], ["sack", "wscale"]):
        names = ",".join(wanted)
        run("conversation", *ENDS, "--mss", "1000", "--tcp-options", names, "-w", path)
        shown = tshark(path, "-Y", "tcp.flags.syn == 1", "-T", "fields", *(f"-e{field}" for field in fields))
        order = ("mss", "wscale", "timestamps", "sack")
        for line in shown:
            assert [bool(value) for value in line.split("\t")] == [name in wanted for name in order]
    run("conversation", *ENDS, "--window", "1000000", "-w", path)
    assert tshark(path, "-Y", "frame.number == 3", "-T", "fields", "-e", "tcp.window_size") == ["1000000"]


def simulated(seed: int) -> tuple[list[Turn], Settings]:
    """Something to say and a wire to say it over, at random."""
    chance = random.Random(seed)
    turns = [
        Turn(chance.randint(0, 1), chance.randbytes(chance.choice([1, 10, 1000, 5000, 40_000])))
        for _ in range(chance.randint(0, 8))
    ]
    options = tuple(name for name in OPTIONS if chance.random() < 0.6)
    window = chance.choice([1000, 4000, 65535, *([500_000] if "wscale" in options else [])])
    loss, reorder = Fraction(chance.choice([0, 0, 5, 20, 50]), 100), Fraction(chance.choice([0, 10, 100]), 100)
    return turns, Settings(chance.choice([48, 536, 1460]), chance.choice([0, 1, 20, 300]) * MS, loss, reorder, window,
                           options, seed)  # fmt: skip


@pytest.mark.parametrize("seed", range(120))
def test_a_connection_ends_well(seed: int) -> None:
    """Whatever the wire does: all is delivered and acknowledged, in time order, within window and segment size."""
    turns, settings = simulated(seed)
    talk = Conversation(turns, settings)
    said: list[dict[int, int]] = [{}, {}]
    acknowledged, before = [0, 0], 0
    for now, segment in talk:
        side, isn = segment.side, talk._hosts[segment.side].isn
        position = segment.seq - isn
        assert now >= before
        assert len(segment.payload) <= settings.payload
        if settings.loss == settings.reorder == 0:
            assert position + len(segment.payload) - acknowledged[side] <= settings.window + 1
        if segment.flags & ACK:
            acknowledged[1 - side] = max(acknowledged[1 - side], segment.ack - talk._hosts[1 - side].isn)
        for at, byte in enumerate(segment.payload, position - 1):
            assert said[side].setdefault(at, byte) == byte
        before = now
    for side in (0, 1):
        wanted = b"".join(turn.data for turn in turns if turn.side == side)
        assert bytes(said[side][at] for at in range(len(said[side]))) == wanted
        assert talk._hosts[1 - side]._received == wanted
        assert talk._hosts[side]._una == len(wanted) + 2


def test_datagrams(tmp_path: Path) -> None:
    given = texts(tmp_path, [10, 1472, 3])
    path = tmp_path / "out.pcap"
    files = ["--request", tmp_path / "0", "--response", tmp_path / "1", "--request", tmp_path / "2"]
    run("conversation", "--proto", "udp", *ENDS, *files, "-w", path)
    assert followed(path, "udp") == [given[0] + given[2], given[1]]
    assert tshark(path, "-Y", WRONG) == []
    run("conversation", "--proto", "udp", *ENDS, *files, "--loss", "45", "--seed", "5", "-w", path)
    lengths = tshark(path, "-T", "fields", "-e", "udp.length")
    assert lengths.count("1480") == 1 and lengths.count("18") > 1  # asked again until answered


def test_a_conversation_of_nothing_is_a_connection(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    run("conversation", *ENDS, "-w", path)
    flags = [int(line, 16) for line in tshark(path, "-T", "fields", "-e", "tcp.flags")]
    assert flags == [0x02, 0x12, 0x10, 0x11, 0x11, 0x10]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("--client 10.0.0.1", "--server is missing"),
        ("--server 10.0.0.1:80", "--client is missing"),
        ("--client 10.0.0.1 --server 10.0.0.2",
         "--server: '10.0.0.2' is not ADDRESS:PORT (an IPv6 address stands in brackets)"),
        ("--client 10.0.0.1 --server [::1]:80", "the client is IPv4, the server is IPv6"),
        ("--client 10.0.0.1:80 --server 10.0.0.1:80", "client and server are the same"),
        ("--client 10.0.0.1 --server 10.0.0.2:80 --request nosuch", "nosuch: No such file or directory"),
        ("--client 10.0.0.1 --server 10.0.0.2:80 --request .", ".: Is a directory"),
        ("--client 10.0.0.1 --server 10.0.0.2:80 --mss 1461",
         "--mss: 1461 is not between 48 and 1460, which is what the link takes (--mtu)"),
        ("--client 10.0.0.1 --server 10.0.0.2:80 --window 65536 --tcp-options mss",
         "--window: 65536 is not between 1 and 65535 without wscale"),
        ("--client 10.0.0.1 --server 10.0.0.2:80 --loss 51", "--loss: more than 50 percent end a conversation"),
        ("--client 10.0.0.1 --server 10.0.0.2:80 --proto sctp", "--proto: 'sctp' is not tcp or udp"),
        ("--client 10.0.0.1 --server 10.0.0.2:80 --proto udp --mss 100", "--mss does not go with --proto udp"),
        ("--client 10.0.0.1 --server 10.0.0.2:80 --proto udp --request big",
         "1473 bytes do not fit a datagram: the link takes 1472 (--mtu)"),
        ("--client 10.0.0.1 --server 10.0.0.2:80 --request - --response -", "standard input can be read only once"),
        ("--client 10.0.0.1 --server 10.0.0.2:80 -l IPV6", "frames of IPV6 (229) carry no IPv4"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(arguments: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(1473))
    result = run("conversation", *arguments.split(), "-w", "out.pcap", status=2, cwd=tmp_path, stdin=subprocess.DEVNULL)
    assert (result.stdout, result.stderr.decode()) == (b"", f"pcapgen: {reason}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["big"]


def test_no_udp_checksum_is_zero() -> None:
    """A sum of zero means "none", over IPv6 too, so it is sent as its other form (RFC 768, RFC 8200)."""
    for address in ("10.0.0.1", "::1"):
        end = craft.End(ip_address(address), 7)
        seen = set()
        for payload in product(range(256), repeat=2):
            packet = craft.udp(end, end, bytes(payload))
            at = 20 if end.address.version == 4 else 40
            seen.add(packet[at + 6 : at + 8])
            pseudo = end.address.packed * 2 + bytes((0, 0, 0, len(packet) - at, 0, 0, 0, 17))
            assert checksum(pseudo + packet[at:]) == 0
        assert b"\0\0" not in seen
        assert b"\xff\xff" in seen


# Hex dumps

DUMP = """\
# a comment
I 2023-05-14 19:04:57.123456
000000 00 0e b6 00 00 02 00 0e b6 00 00 01 08 00 45 00  ..abcdef......ab
000010 00 28 00 00 00 00 ff 01 37 d1 c0 00 02 01 c0 00
000020 02 02 08 00 a6 2f 00 01 00 01 48 65 6c 6c 6f 20  ab cd
000030 57 6f 72 6c 64 21
000036

O 2023-05-14 19:04:58.5
0000  61 62 63 64
0004  65 66
I 2023-05-14 19:04:59.000001
0000 61 62 63 64 7a
O 2023-05-14 19:05:59.000001
0000 01 02 03 34 34 and more
"""
FIELDS = (
    "frame.time_epoch", "frame.len", "ip.src", "ip.dst", "ip.proto", "ipv6.src", "ipv6.dst", "eth.type", "tcp.srcport",
    "tcp.seq_raw", "udp.srcport", "udp.dstport", "sctp.srcport", "sctp.verification_tag",
    "sctp.data_payload_proto_id", "sctp.data_tsn_raw", "data.data", "udp.payload", "tcp.payload",
)  # fmt: skip


@pytest.mark.parametrize(
    "options",
    ["-i 46 --pad", "-u 1000,2000 --pad", "-T 50,60 --pad", "-s 30,40,34 --pad", "-S 30,40,34 --pad", "-l 147",
     "-4 10.0.0.1,10.0.0.2 -u 5,6 --pad", "-6 2001:db8::1,2001:db8::2 -T 5,6", "-6 ::1,::2 -u 5,6", "-l 101 -u 5,6",
     "-e 88b5 --pad", ""],
)  # fmt: skip
def test_text2pcap_makes_the_same(options: str, tmp_path: Path) -> None:
    (tmp_path / "dump").write_text(DUMP)
    common = ["-D", "-t", "%Y-%m-%d %H:%M:%S.%f", *options.replace("--pad", "").split()]
    theirs = [tool("text2pcap"), "-q", "-F", "pcap", *common, tmp_path / "dump", tmp_path / "theirs.pcap"]
    subprocess.run(theirs, check=True, capture_output=True, env=UTC, timeout=60)
    pad = ["--pad"] if "--pad" in options else []
    run("hex", *common, *pad, tmp_path / "dump", "-w", tmp_path / "ours.pcap")
    shown = [tshark(tmp_path / f"{who}.pcap", "-T", "fields", *(f"-e{field}" for field in FIELDS))
             for who in ("ours", "theirs")]  # fmt: skip
    assert shown[0] == shown[1]
    assert len(shown[0]) == 4
    if options:
        assert tshark(tmp_path / "ours.pcap", "-Y", "ip.checksum.status == 0 or tcp.checksum.status == 0") == []


def packets_of(dump: str, **options) -> list[bytes]:
    return [packet.data for packet in hexdump.Reader(dump.splitlines(), **options)]


def test_the_output_of_every_dumper(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(300) + bytes(range(256)) + b"61 62 63 64 65 66 67 68 " * 5
    (tmp_path / "data").write_bytes(data)
    dumpers = {
        "od -Ax -tx1 -v": {}, "od -Ax -tx1z -v": {}, "od -Ad -tx1 -v": {"base": 10}, "od -Ao -tx1 -v": {"base": 8},
        "od -An -tx1 -v": {"base": 0}, "hexdump -Cv": {}, "xxd": {}, "xxd -g4": {}, "xxd -p": {"base": 0},
    }  # fmt: skip
    tried = 0
    for dumper, options in dumpers.items():
        program, *arguments = dumper.split()
        try:
            told = subprocess.run([program, *arguments, tmp_path / "data"], capture_output=True, text=True, check=True)
        except FileNotFoundError:
            continue
        tried += 1
        assert packets_of(told.stdout, **options) == [data], dumper
    assert tried >= 5


def test_tshark_dumps_come_back(tmp_path: Path) -> None:
    path = tmp_path / "mix.pcap"
    run("mix", "-n", "500", "--flows", "40", "-w", path)
    dump = tshark(path, "-o", "tcp.desegment_tcp_streams:FALSE", "-x")
    wanted = [data for _, data in dpkt.pcap.Reader(path.open("rb"))]
    assert packets_of("\n".join(dump)) == wanted


def test_text_behind_the_last_bytes() -> None:
    assert packets_of("0000 61 62 20 63   ab c") == [b"ab c"]
    assert packets_of("0000 33 34  34 35") == [b"3445"]
    assert packets_of("0000 33 34  34") == [b"34"]
    assert packets_of("0000 33 34 34") == [b"344"]
    assert packets_of("0000 33 34  34\n0003") == [b"344"]
    assert packets_of("0000 61 62 ab", ascii=True) == [b"ab"]
    assert packets_of("0000 61 62 ab") == [b"ab\xab"]


def test_without_offsets() -> None:
    assert packets_of("00 01\n0203\n\n# no\n04 05 text\nmore text\n06", base=0) == [b"\0\1\2\3", b"\4\5", b"\6"]


def test_what_is_wrong_is_said() -> None:
    said: list[str] = []
    dump = "0010 61\n0011 62\n0000 61 62\n0003 63\n0004 64\n0000 65"
    assert packets_of(dump, problem=said.append) == [b"ab", b"e"]
    assert said == [
        "line 1: offset 0x10, but no packet has begun: not read up to the next offset 0",
        "line 4: offset 0x3 where 0x2 is expected: the rest of the packet is not read",
    ]
    said.clear()
    too_large = "00 " * 1024 + "\n"
    lines = "".join(f"{k * 1024:06x} {too_large}" for k in range(257)) + "0000 61"
    assert packets_of(lines, problem=said.append) == [b"a"]
    assert said == ["line 258: a packet of 263168 bytes: more than 262144 are not possible; left out"]


@pytest.mark.parametrize(
    ("format", "text", "wanted"),
    [
        ("%Y-%m-%d %H:%M:%S.%f", "2023-05-14 19:04:57.123456789 and more", 1684091097123456789),
        ("%H:%M:%S", "19:04:57", 1684091097000000000),
        ("%H:%M:%S.%f", "19:04:57", 1684091097000000000),
        ("ISO", "2023-05-14 19:04:57,25 and more", 1684091097250000000),
        ("%d %b %Y %H:%M:%S,%f", "14 May 2023 19:04:57,5", 1684091097500000000),
        ("%s", "1684091097.25", 1684091097250000000),
        ("%s.%f", "1684091097.000000001", 1684091097000000001),
        ("ISO", "2023-05-14T19:04:57.000000001Z", 1684091097000000001),
        ("ISO", "2023-05-14T21:04:57+02:00", 1684091097000000000),
        ("ISO", "yesterday", None),
        ("%H:%M:%S", "25:00:00", None),
    ],
)
def test_times(format: str, text: str, wanted: int | None) -> None:
    assert hexdump.Clock(format, 1684080000 * generate.SECOND).read(text) == wanted


def test_packets_without_a_time_follow_the_one_before(tmp_path: Path) -> None:
    dump = b"0000 61\n10:00:00.5\n0000 62\n0000 63\n"
    result = run("hex", "-t", "%H:%M:%S.%f", "--start", "2026-11-21T08:00:00Z", input=dump)
    assert result.stderr == b"pcapgen: 2 packets without a time: each a microsecond after the one before\n"
    (tmp_path / "out.pcap").write_bytes(result.stdout)
    times = tshark(tmp_path / "out.pcap", "-T", "fields", "-e", "frame.time_epoch")
    assert times == ["1795248000.000000000", "1795255200.500000000", "1795255200.500001000"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("nosuch", "nosuch: No such file or directory"),
        ("empty", "empty: no packet in it: a line such as '0000 61 62 63' begins one"),
        ("-o bin empty", "--offsets: 'bin' is not hex, oct, dec, none"),
        ("-t %Q empty", "--time: '%Q' is not a format of times: 'Q' is a bad directive in format '%Q'"),
        ("-u 1 empty", "--udp: '1' is not a list of 2, with commas"),
        ("-u 1,65536 empty", "--udp: '65536' is not a port"),
        ("-u 1,2 -T 1,2 empty", "--udp and --tcp contradict each other"),
        ("-4 1.2.3.4,1.2.3.5 empty", "addresses need a protocol: -i, -u, -T, -s or -S"),
        ("-4 ::1,::2 -u 1,2 empty", "--udp: '::1,::2' are not two IPv4 addresses"),
        ("-e 10000 empty", "--ethertype: '10000' is not a number up to ffff (hexadecimal)"),
        ("-l RAW -e 800 empty", "--ethertype: headers of this link type have no such field"),
    ],
)
def test_bad_dumps_are_refused(arguments: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("no packet\n")
    result = run("hex", *arguments.split(), "-w", "out.pcap", status=2, cwd=tmp_path)
    assert (result.stdout, result.stderr.decode()) == (b"", f"pcapgen: {reason}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_dump_too_large_for_its_header(tmp_path: Path) -> None:
    dump = "".join(f"{k * 1024:06x} {'00 ' * 1024}\n" for k in range(64)) + "0000 61\n"
    result = run("hex", "-u", "1,2", input=dump.encode(), status=1)
    assert result.stderr == b"pcapgen: packet 1 left out: 65544 bytes do not fit an IPv4 packet\n"
    assert len(list(dpkt.pcap.Reader(io.BytesIO(result.stdout)))) == 1


def test_every_header_is_located() -> None:
    """Our own walk (core/csrc/headers.h) finds the IP layer behind every link layer header."""
    for number in linklayer._BUILDERS:
        for version in (4, 6):
            if linklayer.carries_ip(number, version):
                located(number, version, None)
                if linklayer.carries_vlan(number):
                    located(number, version, 9)


def located(number: int, version: int, vlan: int | None) -> None:
    end = craft.End(ip_address("10.0.0.1" if version == 4 else "::1"), 7)
    for outgoing in (True, False):
        head = linklayer.header(number, version, outgoing=outgoing, vlan=vlan)
        layout = generate.Layout(number, True, 0, 1, b"", b"", None, 0)
        batch = next(generate.framed([(5, head + craft.udp(end, end, b"x"))], layout))
        where = batch.headers(0)
        assert (where.depth, where.outer.ip, where.outer.version) == (1, len(head), version), number
        assert batch.sums(False)[1][0] == 1
