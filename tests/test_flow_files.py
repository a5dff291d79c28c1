"""pcapsplit-flows: every packet goes to exactly one file, whatever comes in and however it comes."""

from __future__ import annotations

import collections
import csv
import io
import json
import os
import resource
import select
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import captures
import pytest
from captures import PcapngBlocks, ether, ipv4, udp

from pcaptools.commands.pcapsplit_flows import main
from pcaptools.core._flows import FlowTable
from pcaptools.engines.flows import Row, parse_by, parse_timeout
from pcaptools.engines.naming import Names, parse_template, safe
from pcaptools.engines.relations import dns_addresses, ftp_end, sdp_ends
from pcaptools.errors import DamagedError, InputError
from pcaptools.files import store
from pcaptools.files.capture import open_capture

STUB = Path(__file__).resolve().parent.parent / "bin" / "pcapsplit-flows"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(STUB.parents[1])}
A, B = captures.SOURCE4, captures.TARGET4
READABLE = [row["path"] for row in captures.index() if not captures.is_foreign(row) and "perf/" not in row["path"]]
LARGER = [row["path"] for row in captures.index() if row["path"] in READABLE and int(row["packets"] or 0) > 20]


def packets(path: Path) -> list[tuple]:
    """(time, wire length, link type, bytes) of every packet before any damage."""
    found = []
    try:
        for batch in open_capture(str(path)):
            for k, record in enumerate(batch.records()):
                found.append((record.time, record.wirelen, batch.linktype(k), bytes(batch.packet(k))))
    except DamagedError:
        pass
    return found


def is_part_of(part: list, whole: list) -> bool:
    """Whether the packets of a file are in the input's order."""
    rest = iter(whole)
    return all(packet in rest for packet in part)


def check(source: Path, directory: Path) -> None:
    """Packets in = packets out, in order within each file."""
    whole = packets(source)
    files = [packets(path) for path in directory.rglob("*.*")] if directory.exists() else []
    assert collections.Counter(whole) == collections.Counter(packet for file in files for packet in file)
    assert all(is_part_of(file, whole) for file in files)


def split(source: Path, directory: Path, *options: str) -> int:
    return main([*options, "-q", "-d", str(directory), str(source)])


def can_open(path: Path) -> bool:
    try:
        open_capture(str(path)).close()
    except InputError:
        return False
    return True


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five flows of eight packets, and a packet without one."""
    path = tmp_path_factory.mktemp("mixed") / "in.pcap"
    frames = [ether(ipv4(udp(bytes(20 + k), 1000 + k % 5, 53), 17)) for k in range(40)]
    path.write_bytes(captures.pcap([*frames, ether(bytes(28), 0x0806)]))
    return path


# Packets in = packets out


@captures.every(READABLE)
def test_every_packet_goes_to_one_file(path: str, tmp_path: Path) -> None:
    source = captures.ROOT / path
    status = split(source, tmp_path / "out")
    if not can_open(source):
        assert status == 2
        return
    assert status in (0, 1)
    check(source, tmp_path / "out")


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs are read as if through a pipe, of which little is held."""
    held = store.Held.__init__
    monkeypatch.setattr(store, "plain_start", lambda raw: None)
    monkeypatch.setattr(store, "_SLACK", 100)
    monkeypatch.setattr(store.Held, "__init__", lambda self, limit, spool: held(self, 3000, spool))


@captures.every(LARGER)
def test_a_pipe_is_spilled(path: str, tmp_path: Path, piped: None) -> None:
    assert split(captures.ROOT / path, tmp_path / "out") in (0, 1)
    check(captures.ROOT / path, tmp_path / "out")


@captures.every(LARGER[::4])
@pytest.mark.parametrize("option", ["--min-packets=1", "--compress=gz", "--related=dns,sip,ftp,http", "-Fpcapng"])
def test_a_pipe_is_spilled_or_spooled(path: str, option: str, tmp_path: Path, piped: None) -> None:
    assert split(captures.ROOT / path, tmp_path / "out", option) in (0, 1)
    check(captures.ROOT / path, tmp_path / "out")


WAYS = (
    "connection", "hosts", "client", "server", "server-port", "client-port", "source", "destination", "vlan", "link",
    "interface", "protocol", "count:7", "size:3000", "time:0.5", "files:3", "filter:tcp",
)  # fmt: skip


@captures.every(["mixed/PcapPlusPlus__many-protocols.pcap", *LARGER[:6]])
@pytest.mark.parametrize("way", WAYS)
def test_by(path: str, way: str, tmp_path: Path) -> None:
    assert split(captures.ROOT / path, tmp_path / "out", f"--by={way}") in (0, 1)
    check(captures.ROOT / path, tmp_path / "out")


@captures.needs_captures
def test_skype_has_183_pairs_of_hosts(tmp_path: Path) -> None:
    assert split(captures.ROOT / "mixed/peafowl__skype-irc.cap", tmp_path, "--by=hosts") == 0
    assert len(list(tmp_path.glob("*_flow-*"))) == 183


def test_files_are_the_same_from_a_pipe(mixed: Path, tmp_path: Path) -> None:
    split(mixed, tmp_path / "file")
    argv = [sys.executable, STUB, "-d", tmp_path / "pipe"]
    subprocess.run(argv, input=mixed.read_bytes(), check=True, env=ENVIRONMENT)
    for path in (tmp_path / "file").iterdir():
        assert path.read_bytes() == (tmp_path / "pipe" / path.name.replace("in.pcap", "stdin")).read_bytes()


def test_a_few_descriptors_are_enough(tmp_path: Path) -> None:
    source = tmp_path / "in.pcap"
    source.write_bytes(captures.pcap([ether(ipv4(udp(b"x", port), 17)) for port in range(1, 3000)]))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 8, hard))
    try:
        assert split(source, tmp_path / "out") == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(list((tmp_path / "out").iterdir())) == 2999


def test_pcapng_keeps_comments_sections_and_used_interfaces(tmp_path: Path) -> None:
    blocks, other = PcapngBlocks(), PcapngBlocks(">")
    comment = blocks.option(1, b"hello") + blocks.option(0)
    frames = [ether(ipv4(udp(b"x", port), 17)) for port in (1, 2)]
    source = tmp_path / "in.pcapng"
    source.write_bytes(
        blocks.section(blocks.option(2, b"hardware") + blocks.option(0))
        + blocks.interface(1) + blocks.interface(1)
        + blocks.interface(1, resolution=9, options=blocks.option(2, b"eth7"))
        + blocks.packet(frames[0], 2, 5, 99, comment) + blocks.packet(frames[1], 1, 6) + blocks.simple_packet(frames[1])
        + other.section() + other.interface(1) + other.packet(frames[0], 0, 7)
    )  # fmt: skip
    assert split(source, tmp_path / "out") == 0
    check(source, tmp_path / "out")
    one = tmp_path / "out" / "in.pcapng_flow-1.pcapng"
    assert one.read_bytes().count(b"eth7") == one.read_bytes().count(b"hello") == 1
    assert one.read_bytes().count(b"hardware") == 1
    reader = open_capture(str(one))
    assert sum(batch.n for batch in reader) == 2
    assert [interface[2] for interface in reader.interfaces] == [6, 9, 6]  # the first one is that of simple packets


# Names


def row(**fields) -> Row:
    plain = dict.fromkeys(Row._fields, 0)
    return Row(**{**plain, "version": 4, "protocol": 17, "client": A, "server": B, "vlans": (), **fields})


def test_templates() -> None:
    template = "{proto}/{src}-{sport}_{dst}-{dport}_{vlan}_{start}_{n:04}"
    names = Names("in.pcap", ".pcap", parse_by("connection"), template)
    first = names.of(7, row(client_port=1000, server_port=53, vlans=(5, 6)))
    assert first == "udp/10.0.0.2-53_10.0.0.1-1000_5.6_19700101T000000Z_0007.pcap"
    six = row(version=6, client=captures.SOURCE6, server=captures.TARGET6, client_first=True)
    assert names.of(8, six).startswith("udp/2001-db8--1-0_2001-db8--2-0_none_")


def test_equal_names_are_numbered() -> None:
    names = Names("in.pcap", ".pcap", parse_by("connection"), "{client}")
    assert [names.of(k, row()) for k in range(3)] == ["10.0.0.1.pcap", "10.0.0.1-2.pcap", "10.0.0.1-3.pcap"]


@pytest.mark.parametrize("text", ["{nothing}", "{n", "{n!r}", "{n:x.y}", "{proto:d}", "", "dir/", "{}"])
def test_templates_that_cannot_be(text: str) -> None:
    with pytest.raises(ValueError, match="'"):
        parse_template(text)


@pytest.mark.parametrize(
    ("value", "name"), [("fe80::1%0", "fe80--1-0"), ("..", "none"), ("a/b", "a-b"), (None, "none")]
)
def test_safe(value: object, name: str) -> None:
    assert safe(value) == name


@pytest.mark.parametrize("text", ["x", "count", "count:0", "files:x", "filter:", "size:-1", "time:0"])
def test_ways_that_cannot_be(text: str) -> None:
    with pytest.raises(ValueError, match="'"):
        parse_by(text)


@pytest.mark.parametrize("text", ["1e999999999", "1/0", "nan", "-1", "1_0", "", "1e40"])
def test_times_that_cannot_be(text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}'"):
        parse_timeout(text)
    assert [parse_timeout(good) for good in ("0", "1.5", ".5", "2e-3", "1e3")] == [
        0,
        15 * 10**8,
        5 * 10**8,
        2 * 10**6,
        10**12,
    ]


# Existing files, full disks


def test_a_file_is_no_directory(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-d", str(mixed), str(mixed)]) == 2
    assert f"{mixed}: Not a directory; no file was completed" in capsys.readouterr().err
    (tmp_path / "udp").write_text("mine")
    assert split(mixed, tmp_path, "--name={proto}/{n}", "--by=protocol") == 2
    assert "udp: Not a directory" in capsys.readouterr().err


def test_a_directory_does_not_make_a_manifest_csv(mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    assert main(["--list", f"--manifest={tmp_path}/x.csv/flows.json", str(mixed)]) == 0
    assert (tmp_path / "x.csv" / "flows.json").read_text().startswith('{"flow": 1, ')


def test_nothing_is_overwritten_without_force(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.pcap_flow-3.pcap").write_text("mine")
    assert split(mixed, tmp_path) == 2
    said = capsys.readouterr().err
    assert "flow-3.pcap: exists: --force" in said
    assert "2 files are complete" in said
    assert (tmp_path / "in.pcap_flow-3.pcap").read_text() == "mine"
    assert split(mixed, tmp_path, "--force") == 0
    check(mixed, tmp_path)


def test_the_input_is_never_replaced(mixed: Path, tmp_path: Path) -> None:
    source = tmp_path / "5.pcap"
    source.write_bytes(mixed.read_bytes())
    assert split(source, tmp_path, "--force", "--name={n}") == 2
    assert source.read_bytes() == mixed.read_bytes()


@pytest.mark.parametrize("option", ["", "--compress=gz", "-Fpcapng"])
def test_no_space(option: str, tmp_path: Path) -> None:
    source = tmp_path / "in.pcap"
    frames = [ether(ipv4(udp(os.urandom(1400), 1 + k // 4), 17)) for k in range(400)]
    source.write_bytes(captures.pcap(frames))
    script = f"""
mkdir {tmp_path}/full && mount -t tmpfs -o size=200k none {tmp_path}/full || exit 99
{sys.executable} {STUB} -d {tmp_path}/full {option} {source}
status=$?
cp -r {tmp_path}/full {tmp_path}/found
exit $status
"""
    argv = ["unshare", "-rm", "sh", "-c", script]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=30, env=ENVIRONMENT)
    assert run.returncode == 2, run.stderr
    assert "No space left on device" in run.stderr
    files = sorted((tmp_path / "found").iterdir())
    assert f"{len(files)} files are complete" in run.stderr
    assert all(len(packets(path)) == 4 for path in files)


def test_a_directory_that_cannot_be_made(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert split(mixed, tmp_path / "file" / "sub") == 2
    assert "no file was completed" in capsys.readouterr().err


# Choosing, describing


def test_choosing(mixed: Path, tmp_path: Path) -> None:
    split(mixed, tmp_path / "top", "--top=2", "--drop-other")
    assert sorted(path.name for path in (tmp_path / "top").iterdir()) == ["in.pcap_flow-1.pcap", "in.pcap_flow-2.pcap"]
    split(mixed, tmp_path / "complete", "--complete")
    assert [path.name for path in (tmp_path / "complete").iterdir()] == ["in.pcap_other.pcap"]
    split(mixed, tmp_path / "filter", "-f", "udp src port 1001")
    assert [path.name for path in (tmp_path / "filter").iterdir()] == ["in.pcap_flow-1.pcap"]


def test_the_manifest(mixed: Path, tmp_path: Path) -> None:
    assert split(mixed, tmp_path / "out", f"--manifest={tmp_path}/flows.json") == 0
    flows = [json.loads(line) for line in (tmp_path / "flows.json").read_text().splitlines()]
    assert [flow["name"] for flow in flows] == [f"{tmp_path}/out/in.pcap_flow-{n}.pcap" for n in range(1, 6)]
    assert all(len(packets(Path(flow["name"]))) == flow["packets_out"] == 8 for flow in flows)
    assert flows[0]["first"] == "1000.000000000"
    assert split(mixed, tmp_path / "again", f"--manifest={tmp_path}/flows.csv", "--top=1") == 0
    (one,) = csv.DictReader((tmp_path / "flows.csv").open())
    assert (one["flow"], one["client"], one["client_port"], one["proto"]) == ("1", "10.0.0.1", "1000", "udp")


@captures.every(["mixed/PcapPlusPlus__many-protocols.pcap", "encap/arkime__arkime_synthetic.pcap"])
def test_the_list_says_what_the_manifest_says(path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-l", f"--manifest={tmp_path}/flows.json", str(captures.ROOT / path)]) == 0
    listed = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    flows = [json.loads(line) for line in (tmp_path / "flows.json").read_text().splitlines()]
    assert len(listed) == len(flows) > 10
    for line, flow in zip(listed, flows, strict=True):
        state = "-".join(filter(None, (flow["started"], flow["ended"])))
        sums = flow["packets_out"] + flow["packets_in"], flow["bytes_out"] + flow["bytes_in"]
        assert line[:3] + line[4:] == [str(flow["flow"]), *map(str, sums), state, flow["key"]]


def test_tar(mixed: Path, tmp_path: Path) -> None:
    made = subprocess.run([sys.executable, STUB, "--tar", mixed], capture_output=True, check=True, env=ENVIRONMENT)
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as archive:
        assert archive.getnames() == [*(f"in.pcap_flow-{n}.pcap" for n in range(1, 6)), "in.pcap_other.pcap"]
        archive.extractall(tmp_path / "out")  # Python 3.10 may lack the filter
    check(mixed, tmp_path / "out")


def test_exec(mixed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert split(mixed, tmp_path, "--exec=echo {}", "--name={n} x") == 0
    assert sorted(capfd.readouterr().out.splitlines()) == sorted(str(path) for path in tmp_path.iterdir())
    assert split(mixed, tmp_path / "b", "--exec=grep -q no-such-thing") == 1
    assert "6 of 6 commands failed" in capfd.readouterr().err


# Relations


def dns_answer(address: bytes, ttl: int) -> bytes:
    question = b"\3www\7example\0\0\1\0\1"
    return (
        struct.pack(">HHHHHH", 1, 0x8180, 1, 1, 0, 0) + question + struct.pack(">HHHIH", 0xC00C, 1, 1, ttl, 4) + address
    )


def test_dns_addresses() -> None:
    assert list(dns_addresses(dns_answer(B, 60))) == [(B, 60)]
    for size in range(40):
        list(dns_addresses(dns_answer(B, 60)[:size]))


def test_sdp() -> None:
    text = "SIP/2.0 200 OK\r\n\r\nc=IN IP4 10.0.0.9\r\nm=audio 4000 RTP/AVP 0\r\n"
    text += "m=video 5000 RTP/AVP 31\r\nc=IN IP4 10.0.0.8\r\na=rtcp:6001\r\n"
    ends = [(bytes([10, 0, 0, 9]), 4000), (bytes([10, 0, 0, 9]), 4001)]
    ends += [(bytes([10, 0, 0, 8]), port) for port in (5000, 5001, 6001)]
    assert list(sdp_ends(text)) == ends


@pytest.mark.parametrize(
    ("line", "end"),
    [
        ("227 Entering Passive Mode (10,0,0,2,4,1).", (B, 1025)), ("PORT 10,0,0,1,4,2", (A, 1026)),
        ("229 Entering Extended Passive Mode (|||6446|)", (B, 6446)), ("EPRT |1|10.0.0.1|6275|", (A, 6275)),
        ("227 no", None), ("PORT 999,0,0,1,4,2", None), ("EPRT |1|x|6275|", None),
    ],
)  # fmt: skip
def test_ftp(line: str, end: tuple[bytes, int] | None) -> None:
    assert ftp_end(line, row(client=A, server=B)) == end


def tcp_data(payload: bytes, sport: int, dport: int, source: bytes = A, target: bytes = B) -> bytes:
    return ether(ipv4(captures.tcp(payload, sport, dport, source, target), 6, source, target))


def related(tmp_path: Path, frames: list[tuple[int, bytes]], which: str) -> list[list[str]]:
    """The relation and the cause of the flows in each file."""
    source = tmp_path / "in.pcap"
    source.write_bytes(captures.pcap([(seconds, 0, frame, len(frame)) for seconds, frame in frames]))
    assert split(source, tmp_path / "out", f"--related={which}", f"--manifest={tmp_path}/flows.json") == 0
    check(source, tmp_path / "out")
    files: dict[str, list[str]] = {}
    for line in (tmp_path / "flows.json").read_text().splitlines():
        flow = json.loads(line)
        files.setdefault(flow["name"], []).append(f"{flow['relation']}{flow['cause'] or ''}")
    return list(files.values())


def test_dns_and_what_was_looked_up(tmp_path: Path) -> None:
    resolver, web = bytes([10, 0, 0, 53]), bytes([198, 51, 100, 7])
    frames = [
        (0, ether(ipv4(udp(b"q" * 12, 4000, 53, A, resolver), 17, A, resolver))),
        (1, ether(ipv4(udp(dns_answer(web, 60), 53, 4000, resolver, A), 17, resolver, A))),
        (2, tcp_data(b"", 5000, 80, A, web)),
        (200, tcp_data(b"", 5001, 80, A, web)),  # too late
        (3, tcp_data(b"", 5002, 80, B, web)),  # somebody else
    ]
    assert related(tmp_path, frames, "dns") == [["", "dns1"], [""], [""]]


def test_ftp_and_its_data(tmp_path: Path) -> None:
    frames = [
        (0, tcp_data(b"227 Entering Passive Mode (10,0,0,2,4,1).\r\n", 21, 5000, B, A)),
        (1, tcp_data(b"", 5001, 1025)),
        (2, tcp_data(b"", 5002, 1026)),
    ]
    assert related(tmp_path, frames, "ftp") == [["", "ftp1"], [""]]


def test_a_page_and_what_it_led_to(tmp_path: Path) -> None:
    frames = [
        (0, tcp_data(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", 5000, 80)),
        (1, tcp_data(b"HTTP/1.1 302 Found\r\nLocation: http://b.example/x\r\n\r\n", 80, 5000, B, A)),
        (2, tcp_data(b"GET /x HTTP/1.1\r\nHost: b.example\r\n\r\n", 5001, 80)),
        (3, tcp_data(b"GET /i.png HTTP/1.1\r\nHost: c.example\r\nReferer: http://b.example/x\r\n\r\n", 5002, 80)),
        (4, tcp_data(b"GET /other HTTP/1.1\r\nHost: c.example\r\n\r\n", 5003, 80)),
    ]
    assert related(tmp_path, frames, "http") == [["", "http1", "http2"], [""]]


def test_a_call_and_its_media(tmp_path: Path) -> None:
    sdp = b"Call-ID: abc\r\n\r\nc=IN IP4 %s\r\nm=audio %d RTP/AVP 0\r\n"
    frames = [
        (0, ether(ipv4(udp(b"INVITE sip:b SIP/2.0\r\n" + sdp % (b"10.0.0.1", 4000), 5060, 5060), 17))),
        (1, ether(ipv4(udp(b"rtp", 6000, 4000, B, A), 17, B, A))),
        (2, ether(ipv4(udp(b"rtcp", 4001, 6001), 17))),
        (3, ether(ipv4(udp(b"SIP/2.0 200 OK\r\n" + sdp % (b"10.0.0.2", 6000), 5060, 5060, B, A), 17, B, A))),
        (4, ether(ipv4(udp(b"else", 4444, 6666), 17))),
    ]
    assert related(tmp_path, frames, "sip") == [["", "sip1", "sip1"], [""]]


# From a manifest back to a capture


@pytest.mark.parametrize("suffix", ["csv", "json"])
@captures.every(["mixed/peafowl__skype-irc.cap"])
def test_a_manifest_becomes_a_capture_of_its_shape(path: str, suffix: str, tmp_path: Path) -> None:
    from pcaptools.commands.pcapgen import main as generate

    told, again, made = (str(tmp_path / name) for name in (f"a.{suffix}", f"b.{suffix}", "made.pcap"))
    options = ["-q", "--timeout=0", "--drop-other"]
    assert main([*options, "-d", str(tmp_path / "first"), f"--manifest={told}", str(captures.ROOT / path)]) == 0
    assert generate(["from", "-F", "nspcap", "-w", made, told]) == 0
    assert main([*options, "-d", str(tmp_path / "second"), f"--manifest={again}", made]) == 0

    def shapes(name: str) -> list[tuple]:
        text = Path(name).read_text()
        lines = text.splitlines()
        flows = csv.DictReader(io.StringIO(text)) if suffix == "csv" else map(json.loads, lines)
        same = "key", "first", "last", "packets_out", "packets_in", "started"
        return sorted(tuple(str(flow[field]) for field in same) for flow in flows if flow["proto"] in ("tcp", "udp"))

    first, second = shapes(told), shapes(again)
    assert len(first) == len(second) > 100
    differ = [pair for pair in zip(first, second, strict=True) if pair[0] != pair[1]]
    assert len(differ) <= len(first) // 20, differ[:4]


def sip(line: str, call: str, method: str, sdp: str = "") -> bytes:
    return f"{line}\r\nCall-ID: {call}\r\nCSeq: 1 {method}\r\n\r\n{sdp}".encode()


def test_calls_between_two_proxies_get_a_file_each(tmp_path: Path) -> None:
    def there(payload: bytes, sport: int = 5060, dport: int = 5060) -> bytes:
        return ether(ipv4(udp(payload, sport, dport), 17))

    def back(payload: bytes) -> bytes:
        return ether(ipv4(udp(payload, 5060, 5060, B, A), 17, B, A))

    sdp = "c=IN IP4 10.0.0.1\r\nm=audio {} RTP/AVP 0\r\n"
    frames = [
        there(sip("OPTIONS sip:b SIP/2.0", "keep-alive", "OPTIONS")),
        there(sip("INVITE sip:b SIP/2.0", "one@a", "INVITE", sdp.format(4000))),
        there(sip("INVITE sip:c SIP/2.0", "two@a", "INVITE", sdp.format(5000))),
        back(sip("SIP/2.0 200 OK", "keep-alive", "OPTIONS")),
        back(sip("SIP/2.0 200 OK", "two@a", "INVITE")),
        back(sip("SIP/2.0 200 OK", "one@a", "INVITE")),
        there(b"rtp", 4000, 7000),
        there(b"rtp", 5000, 7002),
        there(sip("BYE sip:b SIP/2.0", "one@a", "BYE").replace(b"Call-ID", b"i")),
        back(sip("NOTIFY sip:a SIP/2.0", "two@a", "NOTIFY")),
    ]
    files = related(tmp_path, list(enumerate(frames)), "sip")
    assert files == [[""], ["", "sip2"], ["", "sip3"]]
    assert [len(packets(tmp_path / "out" / f"in.pcap_flow-{n}.pcap")) for n in (1, 2, 3)] == [2, 4, 4]
    keys = [json.loads(line)["key"] for line in (tmp_path / "flows.json").read_text().splitlines()]
    assert keys[1] == "udp 10.0.0.1:5060 10.0.0.2:5060 call one@a"


def test_sip_messages_that_are_cut() -> None:
    message = sip("INVITE sip:b SIP/2.0", "one@a", "INVITE", "c=IN IP4 10.0.0.1\r\n")
    for size in range(8, len(message)):
        flows = FlowTable(by=0, grouping=0, tells=2)
        for batch in captures.batches(captures.pcap([ether(ipv4(udp(message[:size], 5060, 5060), 17))])):
            flows.index(batch)
        assert flows.flows == 2


# Progress


def on_a_terminal(argv: list[object], **options: object) -> tuple[subprocess.Popen[bytes], int]:
    """A command whose standard error is a terminal, and the terminal's other side."""
    side, terminal = os.openpty()
    process = subprocess.Popen(argv, stderr=terminal, env=ENVIRONMENT, **options)
    os.close(terminal)
    return process, side


def read_until(side: int, wanted: bytes) -> bytes:
    """What is shown until `wanted` or the end."""
    shown = b""
    while wanted not in shown or not wanted:
        try:
            shown += os.read(side, 4096)
        except OSError:
            break
    return shown


def test_progress_on_a_terminal(mixed: Path, tmp_path: Path) -> None:
    data = mixed.read_bytes()
    argv = [sys.executable, STUB, "-d", tmp_path / "out"]
    process, side = on_a_terminal(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    process.stdin.write(data[:24])
    while not select.select([side], [], [], 0.05)[0]:
        process.stdin.write(data[24 : 24 + 16 + int.from_bytes(data[32:36], "little")])
        process.stdin.flush()
    assert b"packets, 0 MB" in read_until(side, b"packets, 0 MB")
    process.stdin.close()
    assert process.wait(30) == 0
    assert read_until(side, b"").endswith(b"\r\x1b[K")
    os.close(side)


@pytest.mark.parametrize("quietly", [["-q"], []])
def test_no_progress_for_who_does_not_look(quietly: list[str], mixed: Path, tmp_path: Path) -> None:
    behind = subprocess.DEVNULL if quietly else subprocess.PIPE  # whoever reads the pipe may show progress itself
    script = "import sys; from pcaptools import cli; cli.Progress.PATIENCE = cli.Progress.INTERVAL = 0; "
    script += "from pcaptools.commands.pcapsplit_flows import main; sys.exit(main())"
    argv = [sys.executable, "-c", script, "-d", tmp_path / "out", *quietly, mixed]
    process, side = on_a_terminal(argv, stdout=behind)
    process.communicate(timeout=30)
    assert (process.returncode, read_until(side, b"")) == (0, b"")
    os.close(side)


def test_progress_of_the_files(mixed: Path, tmp_path: Path) -> None:
    script = "import sys; from pcaptools import cli; cli.Progress.PATIENCE = cli.Progress.INTERVAL = 0; "
    script += "from pcaptools.commands.pcapsplit_flows import main; sys.exit(main())"
    process, side = on_a_terminal(
        [sys.executable, "-c", script, "-d", tmp_path, mixed], stdout=subprocess.DEVNULL
    )  # fmt: skip
    shown = read_until(side, b"")
    assert process.wait(30) == 0
    assert b"pcapsplit-flows: 41 packets, 0 MB, 100%" in shown
    assert shown.endswith(b"6 of 6 files\x1b[K\r\x1b[K")
    os.close(side)
