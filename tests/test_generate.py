"""The native generators: what tshark finds is what the truth says, and nothing is wrong with any packet."""

from __future__ import annotations

import io
import ipaddress
import json
import os
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import dpkt
import pytest
from captures import tool

from pcaptools.core import linktype
from pcaptools.core.batch import Batch
from pcaptools.engines import generate, linklayer

BIN = Path(__file__).resolve().parent.parent / "bin" / "pcapgen"
LINKTYPES = sorted(linklayer._BUILDERS)

CHECKS = ["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]
REASSEMBLE = ["-o", "tcp.reassemble_out_of_order:TRUE"]
COUNTED = {
    "bad ip": "ip.checksum.status == 0",
    "bad tcp": "tcp.checksum.status == 0",
    "bad udp": "udp.checksum.status == 0",
    "malformed": "_ws.malformed",
    "packets": "frame",
    "tcp": "tcp",
    "udp": "udp",
    "syn": "tcp.flags.syn == 1 and tcp.flags.ack == 0",
    "syn_ack": "tcp.flags.syn == 1 and tcp.flags.ack == 1",
    "fin": "tcp.flags.fin == 1",
    "rst": "tcp.flags.reset == 1",
    "retransmissions": "tcp.analysis.retransmission",
    "out_of_order": "tcp.analysis.out_of_order",
    "reused_tuples": "tcp.analysis.reused_ports",
    "requests": "http.request",
    "responses": "http.response",
    "queries": "dns.flags.response == 0",
    "answers": "dns.flags.response == 1",
    "missing": "dns.flags.rcode == 3",
    "vlan": "vlan",
    "ipv6": "ipv6",
}


def run(*arguments: str, status: int = 0, **options) -> subprocess.CompletedProcess[bytes]:
    result = subprocess.run([sys.executable, BIN, *arguments], capture_output=True, timeout=60, **options)
    assert result.returncode == status, result.stderr
    return result


def tshark_counts(path: Path) -> dict[str, int]:
    """How often each of COUNTED is found, and the number of streams."""
    terms = [f"COUNT(frame)frame and ({term})" for term in COUNTED.values()]
    terms += ["MAX(tcp.stream)tcp.stream", "MAX(udp.stream)udp.stream"]
    argv = [tool("tshark"), "-r", path, *CHECKS, *REASSEMBLE, "-q", "-z", ",".join(["io,stat,0", *terms])]
    told = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    row = next(line for line in reversed(told.splitlines()) if "<>" in line)
    values = [int(value) for value in row.strip("| ").split("|")[1:]]
    counts = dict(zip([*COUNTED, "tcp streams", "udp streams"], values, strict=True))
    for kind in ("tcp", "udp"):
        counts[f"{kind} streams"] += counts[kind] > 0
    return counts


def expected_counts(truth: dict) -> dict[str, int]:
    """What tshark has to find, from the truth file."""
    tcp, dns = truth["tcp"], truth["dns"]
    return {
        **dict.fromkeys(("bad ip", "bad tcp", "bad udp", "malformed"), 0),
        **{name: tcp[name] for name in ("syn", "syn_ack", "fin", "rst", "out_of_order", "reused_tuples")},
        "packets": truth["packets"], "tcp": tcp["packets"], "udp": truth["udp"]["packets"],
        "retransmissions": tcp["retransmissions"] + tcp["syn_retransmissions"],
        "requests": truth["http"]["requests"], "responses": truth["http"]["responses"],
        "queries": dns["queries"], "answers": dns["responses"], "missing": dns["missing"],
        "vlan": truth["vlan"]["packets"], "ipv6": truth["ipv6"]["packets"],
        "tcp streams": tcp["flows"], "udp streams": truth["udp"]["flows"],
    }  # fmt: skip


def mixed(path: Path, *arguments: str) -> dict:
    """Make a mix; returns its truth."""
    truth = path.with_suffix(".json")
    run("mix", "-w", str(path), "--truth", str(truth), *arguments)
    return json.loads(truth.read_text())


# The mix


@pytest.mark.parametrize(
    "arguments",
    [
        "-n 30000 --flows 1500 --duration 60",
        "-n 20000 --flows 9000 --duration 600 --seed 2",
        "-n 20000 --flows 300 --duration 0.5 --seed 3 --loss 10 --reorder 20",
        "-n 20000 --flows 10 --duration 3600 --seed 4 --vlan-share 100 --ipv6-share 100 -F pcapng",
        "-n 20000 --flows 2000 --seed 5 --loss 0 --reorder 0 --pad -F nspcap",
        "-n 1000 --flows 1000 --duration 1 --seed 6",
        "-n 2 --flows 2",
    ],
)
def test_tshark_finds_what_the_truth_says(arguments: str, tmp_path: Path) -> None:
    path = tmp_path / "mix.pcap"
    truth = mixed(path, *arguments.split())
    assert tshark_counts(path) == expected_counts(truth)


@pytest.mark.parametrize("number", LINKTYPES)
def test_every_link_type_carries_a_mix(number: int, tmp_path: Path) -> None:
    path = tmp_path / "mix.pcap"
    truth = mixed(path, "-n", "3000", "--flows", "200", "--duration", "10", "--linktype", str(number))
    found, expected = tshark_counts(path), expected_counts(truth)
    if number == 107:  # tshark counts streams by circuit there
        for name in ("tcp streams", "udp streams"):
            found.pop(name), expected.pop(name)
    assert found == expected
    shares = {228: (0, 0), 229: (3000, 3000)}
    least, most = shares.get(number, (1, 2999))
    assert least <= truth["ipv6"]["packets"] <= most
    assert bool(truth["vlan"]["packets"]) == linklayer.carries_vlan(number)


def test_packets_flows_and_time_are_exact(tmp_path: Path) -> None:
    path = tmp_path / "mix.pcap"
    truth = mixed(path, "-n", "12345", "--flows", "678", "--duration", "61.5", "--start", "2026-11-21T08:00:00Z")
    reader = dpkt.pcap.Reader(path.open("rb"))
    packets = [(round(Fraction(str(time)) * 1_000_000), len(data)) for time, data in reader]
    times = [time for time, _ in packets]
    assert len(packets) == truth["packets"] == 12345
    assert sum(size for _, size in packets) == truth["bytes"]
    assert times == sorted(times)
    assert times[0] == 1_795_248_000_000_000
    assert abs(times[-1] - times[0] - 61_500_000) <= 1  # dpkt's times are floats
    assert truth["flows"] == sum(truth["flows_by_kind"].values()) == sum(truth["flows_by_size"].values()) == 678


def test_a_single_packet() -> None:
    assert len(list(dpkt.pcap.Reader(io.BytesIO(run("mix", "-n", "1", "--flows", "1").stdout)))) == 1


def test_sizes_are_heavy_tailed(tmp_path: Path) -> None:
    truth = mixed(tmp_path / "mix.pcap", "-n", "200000", "--flows", "10000")
    largest = truth["largest_flows"]
    assert [flow["packets"] for flow in largest] == sorted((flow["packets"] for flow in largest), reverse=True)
    assert sum(flow["packets"] for flow in largest) > 200000 * 0.1  # 16 of 10000 flows
    assert sum(n for size, n in truth["flows_by_size"].items() if int(size) < 4) > 10000 * 0.4
    assert 500 < truth["bytes"] / truth["packets"] < 900
    assert all(truth["flows_by_kind"].values())
    first = largest[0]
    assert ipaddress.ip_address(first["client"][0]) and first["server"][1]
    assert truth["start"] <= first["first"] <= first["last"] <= truth["start"] + truth["duration"]


def test_the_seed_decides() -> None:
    def bytes_of(seed: int) -> bytes:
        return run("mix", "-n", "2000", "--seed", str(seed)).stdout

    assert bytes_of(1) == bytes_of(1) != bytes_of(2)


def test_the_bytes_of_a_seed_stay() -> None:
    """A change here changes every capture that somebody made: it must be wanted."""
    batch = Batch()
    mix = generate.mix(
        layout(), 100, 3000, generate.SECOND, vlan_share=Fraction(1, 5), ipv6_share=Fraction(1, 5),
        loss=Fraction(1, 50), reorder=Fraction(1, 50),
    )  # fmt: skip
    crc = 0
    while mix.fill(batch):
        for packet in batch.packets():
            crc = dpkt.crc32c.add(crc, bytes(packet))
    assert crc == 1367925996


def layout(**changes) -> generate.Layout:
    plain = generate.Layout(1, True, generate.START, 1, linklayer.CLIENT_MAC, linklayer.SERVER_MAC, None, 0)
    return plain._replace(**changes)


def test_the_batch_agrees_with_its_bytes() -> None:
    """What the generator notes of each record is what the file says, and our own checksums agree."""
    for nanoseconds in (False, True):
        batch = Batch()
        mix = generate.mix(
            layout(nanoseconds=nanoseconds), 50, 5000, generate.SECOND, vlan_share=Fraction(1, 2),
            ipv6_share=Fraction(1, 2), loss=Fraction(0), reorder=Fraction(0),
        )  # fmt: skip
        while mix.fill(batch):
            at = 0
            view = batch.view()
            for record in batch.records():
                seconds, part, caplen, wirelen = struct.unpack_from("=IIII", view, record.start)
                assert record.start == at
                assert record.time == seconds * generate.SECOND + part * (1 if nanoseconds else 1000)
                assert caplen == wirelen == record.caplen == record.wirelen == record.end - record.data
                at = record.end
            assert batch.used == at
            header, transport = batch.sums(False)
            assert header[1] == transport[1] == 0


def test_memory_does_not_grow(tmp_path: Path) -> None:
    """More packets and flows than fit a table need no more memory."""

    def peak(packets: int) -> int:
        script = (
            "import resource, sys\nfrom pcaptools.commands.pcapgen import main\n"
            f"main(['mix', '-n', '{packets}', '-w', '/dev/null'])\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        environment = {**os.environ, "PYTHONPATH": str(BIN.parent.parent)}
        return int(subprocess.check_output([sys.executable, "-c", script], env=environment, timeout=60))

    assert peak(4_000_000) < peak(400_000) * 1.1 + 2048  # KiB


# The flood


def flood_packets(*arguments: str) -> list[dpkt.ethernet.Ethernet]:
    data = run("syn-flood", *arguments).stdout
    return [dpkt.ethernet.Ethernet(packet) for _, packet in dpkt.pcap.Reader(io.BytesIO(data))]


def test_one_syn_per_source_then_the_next_port() -> None:
    packets = flood_packets("--src", "192.168.0.0/30", "--dst", "172.16.0.1", "--dport", "443", "-n", "10")
    sent = [(str(ipaddress.ip_address(p.ip.src)), p.ip.tcp.sport) for p in packets]
    hosts = [f"192.168.0.{k}" for k in range(4)]
    assert sent == [(host, port) for port in (1024, 1025) for host in hosts] + [(host, 1026) for host in hosts[:2]]
    assert {(p.ip.dst, p.ip.tcp.dport, p.ip.tcp.flags) for p in packets} == {(bytes([172, 16, 0, 1]), 443, 2)}


def test_ports_begin_again() -> None:
    packets = flood_packets("--src", "10.0.0.1", "--dst", "10.0.0.2", "--sport", "65534", "-n", "5")
    assert [p.ip.tcp.sport for p in packets] == [65534, 65535, 65534, 65535, 65534]


def test_ranges_and_carries() -> None:
    packets = flood_packets("--src", "10.0.0.254-10.0.1.1", "--dst", "10.0.0.2")
    assert [bytes(p.ip.src)[2:] for p in packets] == [b"\0\xfe", b"\0\xff", b"\1\0", b"\1\1"]
    last = "2001:db8::ffff:ffff:ffff:ffff"
    packets = flood_packets("--src", f"{last}-2001:db8:0:1::1", "--dst", "::1")
    assert [str(ipaddress.ip_address(p.ip6.src)) for p in packets] == [last, "2001:db8:0:1::", "2001:db8:0:1::1"]
    assert len(flood_packets("--src", "::/0", "--dst", "::1", "-n", "3")) == 3


@pytest.mark.parametrize("arguments", ["", "--pad", "--vlan 7 --pad", "-l LINUX_SLL2 --vlan 7", "-l RAW", "-F pcapng"])
@pytest.mark.parametrize("ends", [("10.0.0.0/16", "10.1.0.1"), ("2001:db8::/64", "2001:db8::1")])
def test_a_flood_is_sound(arguments: str, ends: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "flood.pcap"
    run("syn-flood", "--src", ends[0], "--dst", ends[1], "-n", "3000", "-w", str(path), *arguments.split())
    found = tshark_counts(path)
    assert [found[name] for name in ("bad ip", "bad tcp", "malformed")] == [0, 0, 0]
    assert found["packets"] == found["syn"] == found["tcp streams"] == 3000
    assert found["vlan"] == (3000 if "--vlan" in arguments else 0)


def test_frames_are_padded_to_the_minimum() -> None:
    data = run("syn-flood", "--src", "10.0.0.0/24", "--dst", "10.0.0.2", "--pad").stdout
    assert [len(packet) for _, packet in dpkt.pcap.Reader(io.BytesIO(data))] == [60] * 256


def test_the_rate_is_exact() -> None:
    data = run("syn-flood", "--src", "10.0.0.0/24", "--dst", "10.0.0.2", "--pps", "3", "-F", "nspcap").stdout
    reader = dpkt.pcap.Reader(io.BytesIO(data))
    times = [struct.unpack_from("=II", data, 24 + k * (16 + 58)) for k in range(256)]
    assert sum(1 for _ in reader) == 256
    ns = [seconds * 10**9 + part - generate.START for seconds, part in times]
    assert ns == [k * 10**9 // 3 for k in range(256)]


# What is refused


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("mix --flows 10 -n 5", "10 flows do not fit 5 packets: a flow has at least one"),
        ("mix --src 10.0.0.1", "--src does not go with mix, only with syn-flood"),
        ("mix --vlan 5", "--vlan does not go with mix"),
        ("mix -l RAW --vlan-share 3", "frames of RAW (101) carry no VLAN tag"),
        ("mix -l IPV4 --ipv6-share 3", "frames of IPV4 (228) carry no IPv6"),
        ("mix -l RAW --pad", "--pad: only Ethernet pads its frames"),
        ("mix --duration 0", "--duration: '0' seconds are out of range"),
        ("mix --start 4294967000", "the last packet's time is beyond 2106, where the times of captures end"),
        ("mix --loss 101", "--loss: '101' is not between 0 and 100 percent"),
        ("mix -n 0", f"--packets: '0' is not between 1 and {1 << 40}"),
        ("mix --truth -", "--truth: standard output is where the capture goes"),
        ("mix --truth /nosuch/truth", "/nosuch/truth: No such file or directory"),
        ("mix --seed -1", "--seed: '-1' is not between 0 and 2^64 - 1"),
        ("syn-flood --dst 10.0.0.1", "--src is missing"),
        ("syn-flood --src 10.0.0.1", "--dst is missing"),
        ("syn-flood --src 10.0.0.0/8 --dst 10.0.0.1", "16777216 sources: say how many packets (-n)"),
        ("syn-flood --src 10.0.0.1 --dst ::1", "sources are IPv4, the destination is IPv6"),
        ("syn-flood --src 10.0.0.2-10.0.0.1 --dst 10.0.0.1",
         "--src: '10.0.0.2-10.0.0.1' is no range: its end is not behind its beginning"),
        ("syn-flood --src 10.0.0.1 --dst 10.0.0.1 --dport 65536", "--dport: '65536' is not a port"),
        ("syn-flood --src 10.0.0.1 --dst 10.0.0.1 --pps 0", "--pps: '0' is out of range"),
        ("syn-flood --src 10.0.0.1 --dst 10.0.0.1 --vlan 4095",
         "--vlan: '4095' is not the number of a VLAN: 0 to 4094"),
        ("syn-flood --src 10.0.0.1 --dst 10.0.0.1 -l IPV6", "frames of IPV6 (229) carry no IPv4"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(arguments: str, reason: str, tmp_path: Path) -> None:
    result = run(*arguments.split(), status=2, cwd=tmp_path)
    assert result.stdout == b""
    assert result.stderr.decode() == f"pcapgen: {reason}\n"
    run(*arguments.split(), "-w", "out.pcap", status=0 if "--truth -" in arguments else 2, cwd=tmp_path)
    assert "--truth -" in arguments or list(tmp_path.iterdir()) == []


def test_names_of_link_types() -> None:
    names = {row.name: row.number for row in linktype.TABLE}
    assert linklayer.parse("en10mb") == names["EN10MB"] == 1
    assert linklayer.parse("RAW") == 101
    with pytest.raises(ValueError, match=r"'USB_LINUX' is none of NULL \(0\), EN10MB \(1\)"):
        linklayer.parse("USB_LINUX")
