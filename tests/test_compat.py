"""--compat tcprewrite: upstream's own cases, byte for byte; and what the same options do without it."""

from __future__ import annotations

import csv
import os
import pathlib
import shlex
import struct
import subprocess
import sys

import captures
import pytest

from pcaptools.commands import pcaprewrite

CASES = captures.ROOT.parent / "reference" / "tcpreplay-tests"
MISSING = "no cases of tcpreplay beside the captures (PCAPTOOLS_CAPTURES/../reference)"
BIN = pathlib.Path(__file__).resolve().parent.parent / "bin" / "pcaprewrite"


def rows() -> list[dict[str, str]]:
    try:
        with open(CASES / "manifest.tsv", newline="") as file:
            found = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            return [row for row in found if row["tool"] == "tcprewrite"]
    except OSError:
        return []


every_case = pytest.mark.parametrize(
    "row",
    rows() or [pytest.param(None, marks=pytest.mark.skip(reason=MISSING))],
    ids=lambda row: row and row["test_name"],
)


def arguments(row: dict[str, str], out: pathlib.Path) -> list[str]:
    return shlex.split(row["args"].format(IN=CASES / row["input_file"], OUT=out, AUX=CASES / row["aux_file"]))


def run(*argv: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, BIN, *map(str, argv)],
        capture_output=True,
        text=True,
        timeout=20,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(BIN.parent.parent)},
    )


def records(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 24
    while at < len(data):
        caplen, wirelen = struct.unpack_from("<II", data, at + 8)
        found.append((wirelen, data[at + 16 : at + 16 + caplen]))
        at += 16 + caplen
    return found


@every_case
def test_upstream_case(row: dict[str, str], tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"
    assert pcaprewrite.main(["--compat", "tcprewrite", *arguments(row, out)]) == 0
    assert out.read_bytes() == (CASES / row["expected_file(little-endian)"]).read_bytes()


def test_the_command_line(tmp_path: pathlib.Path) -> None:
    if not rows():
        pytest.skip(MISSING)
    out = tmp_path / "out"
    options = tmp_path / "options"
    options.write_text("[TCPREPLAY]\ntopspeed\n[TCPREWRITE]\n# a comment\noutfile nowhere\nttl 58\n")
    result = run("--compat=tcprewrite", "--load-opts", options, f"-i{CASES / 'test.pcap'}", "--outf", out)
    assert (result.returncode, result.stderr) == (0, "")
    assert out.read_bytes() == (CASES / "test2.rewrite_1ttl").read_bytes()


@pytest.mark.parametrize(
    "argv, reason",
    [
        (["--compat", "tcpreplay"], "not tcprewrite"),
        (["--compat", "tcprewrite", "-i", "x"], "--outfile is missing"),
        (["--compat", "tcprewrite", "--no-such"], "unknown option"),
        (["--compat", "tcprewrite", "-i", "/dev/null", "-o", "x"], "not a capture"),
        (["--compat", "tcprewrite", "-s1", "--fuzz-seed=1", "-i", "/dev/null", "-o", "x"], "--seed with --fuzz-seed"),
        (["--compat", "tcprewrite", "--enet-vlan=add", "-i", "/dev/null", "-o", "x"], "needs --enet-vlan-tag"),
    ],
)
def test_refusals(argv: list[str], reason: str) -> None:
    result = run(*argv)
    assert result.returncode == 2
    assert reason in result.stderr
    assert "Traceback" not in result.stderr


def as_tcprewrite(packets: list[bytes], tmp_path: pathlib.Path, *argv: str) -> list[bytes]:
    source, out = tmp_path / "in", tmp_path / "out"
    source.write_bytes(captures.pcap(packets))
    assert pcaprewrite.main(["--compat", "tcprewrite", "-i", str(source), "-o", str(out), *argv]) == 0
    return [packet for _, packet in records(out.read_bytes())]


@pytest.mark.parametrize(
    "maps, port",
    [("80:1,80:2", 2), ("79-81:5,80:6", 6), ("80:6,79-81:5", 5), ("79+80:5,443:6", 5), ("80:81,81:82", 81)],
)
def test_the_last_port_map_decides(maps: str, port: int, tmp_path: pathlib.Path) -> None:
    """As tcprewrite 4.4.3 does; its ranges also map 0 to 0."""
    [packet] = as_tcprewrite([captures.ether(captures.ipv4(captures.tcp(dport=80), 6))], tmp_path, "-r", maps)
    assert packet[36:38] == struct.pack(">H", port)
    [packet] = as_tcprewrite([captures.ether(captures.ipv4(captures.tcp(dport=0), 6))], tmp_path, "-r", "0:9,0-5:7")
    assert packet[36:38] == b"\0\0"


@pytest.mark.parametrize("argv", ["--dlt=linuxsll", "--dlt=null", "--dlt=radiotap", "--dlt=hdlc --hdlc-control=0"])
def test_link_types_that_tcprewrite_cannot_write(argv: str, tmp_path: pathlib.Path) -> None:
    frame = captures.ether(captures.ipv4(captures.tcp(), 6))
    assert as_tcprewrite([frame], tmp_path, "--tos=7", *argv.split()) == [frame]
    assert as_tcprewrite([frame], tmp_path, "--skip-soft-errors", *argv.split()) == []


@pytest.mark.parametrize("cut", [0, 1, 13, 14, 18, 19, 33, 34, 37, 42, 53, 54])
def test_short_packets_do_no_harm(cut: int, tmp_path: pathlib.Path) -> None:
    """Every option at once, on packets of any length."""
    frames = [
        captures.ether(captures.ipv4(captures.tcp(bytes(20)), 6)),
        captures.ether(captures.ipv4(captures.udp(bytes(20)), 17)),
        captures.ether(captures.ipv6(captures.tcp(bytes(20)), 6), 0x86DD),
        captures.ether(bytes(28), 0x0806),
        captures.ether(bytes.fromhex("000000ff") * 40, 0x8847),
        captures.ether(bytes.fromhex("00018100") * 40, 0x8100),
        captures.ether(captures.ipv4(b"", 6, length=0xFFFF)),
        captures.ether(b"\x4f" + bytes(60)),
    ]
    source, out = tmp_path / "in", tmp_path / "out"
    source.write_bytes(captures.pcap([(1, 2, frame[:cut], len(frame)) for frame in frames] + frames))
    options = "-C --fixhdrlen -r 1-65535:7 --tcp-sequence 3 --ttl=-3 --tos 4 -E --mtu-trunc"
    for more in (
        "-s 5",
        "--fuzz-seed 9 --fuzz-factor 1 -N 0.0.0.0/0:1.0.0.0/8,[::]/0:[fd00::]/7",
        "-F pad",
        "-F trunc",
        "--enet-vlan add --enet-vlan-tag 7",
        "--enet-vlan del",
        "--dlt raw",
        "--dlt user --user-dlink 1,2",
        "--dlt hdlc --hdlc-address 1 --hdlc-control 2",
        "--enet-mac-seed 4",
        "--dlt linuxsll",
    ):
        argv = f"--compat tcprewrite -i {source} -o {out} {options} {more}"
        assert pcaprewrite.main(argv.split()) == 0


@every_case
def test_without_compat_the_packets_are_the_same_but_for_mistakes(row: dict[str, str], tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"
    argv = [word for word in arguments(row, out) if word != "--skip-soft-errors"]
    assert pcaprewrite.main(argv) in (0, 1)
    got = records(out.read_bytes())
    wanted = records((CASES / row["expected_file(little-endian)"]).read_bytes())
    if row["test_name"] == "rewrite_dltraw":
        assert got == wanted
        return
    differ = sum(a != b for a, b in zip(got, wanted, strict=False)) + abs(len(got) - len(wanted))
    assert differ <= 30, f"{differ} packets differ"
