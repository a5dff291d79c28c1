"""Two sides: tcpprep's modes, byte for byte with upstream's expected files, and right where those are not."""

from __future__ import annotations

import csv
import random
import shlex
import subprocess
import sys
from pathlib import Path

import captures
import pytest

from pcaptools.core import _sides
from pcaptools.engines.split import Cached, CacheWriter, Plan, Splitter, parse_mode, parse_rule, parse_services
from pcaptools.errors import InputError

COMMAND = [sys.executable, str(Path(__file__).parent.parent / "bin" / "pcapreplay")]
UPSTREAM = captures.ROOT.parent / "reference" / "tcpreplay-tests"
LONG = {
    "-a": "--auto", "-p": "--port", "-e": "--mac", "-c": "--cidr", "-r": "--regex", "-C": "--comment",
    "-m": "--minmask", "-M": "--maxmask", "-N": "--nonip", "--exclude": "--split-exclude",
    "--include": "--split-include",
}  # fmt: skip


def upstream() -> list:
    """The rows of upstream's tests of tcpprep and of tcpreplay -w."""
    try:
        with open(UPSTREAM / "manifest.tsv", newline="") as rows:
            found = [row for row in csv.DictReader(rows, delimiter="\t") if row["tool"] != "tcprewrite"]
    except OSError:
        return [pytest.param(None, marks=pytest.mark.skip(reason="upstream's test files are not here"))]
    return [pytest.param(row, id=row["test_name"]) for row in found]


@pytest.mark.parametrize("row", upstream())
def test_upstream_s_expected_files(row: dict[str, str], tmp_path: Path) -> None:
    words = [word for word in shlex.split(row["args"]) if word not in ("--no-arg-comment", "-i", "-o", "{IN}", "{OUT}")]
    out = tmp_path / "out"
    if row["tool"] == "tcpprep":
        words = [LONG.get(word, word) for word in words]
        words = ["--compat=tcpprep", f"--write-cache={out}", *words]
    else:
        words = ["-w", str(out), *(word for word in words if word != "-w")]
    command: list = [*COMMAND, *words, UPSTREAM / row["input_file"]]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (result.returncode, result.stderr) == (0, "")
    expected = (UPSTREAM / row["expected_file(little-endian)"]).read_bytes()
    if row["tool"] == "tcpreplay":  # it writes nanoseconds under the magic number of microseconds
        assert expected[:4] == bytes.fromhex("d4c3b2a1")
        expected = bytes.fromhex("4d3cb2a1") + expected[4:]
    assert out.read_bytes() == expected


def lanes(plan: Plan, packets: list[bytes], rule: tuple[str, bool] | None = None) -> list[int]:
    """The lanes that a plan gives to packets, fed in two batches."""
    splitter = Splitter(plan, parse_rule(*rule) if rule else None, lambda text, linktype: b"")
    half = len(packets) // 2
    batches = [captures.one_batch(part) for part in (packets[:half], packets[half:]) if part]
    if plan.mode in ("router", "bridge", "client", "server"):
        for batch in batches:
            splitter.survey(batch)
        splitter.decide()
    return [lane for batch in batches for out in splitter.feed(batch) for lane in _sides.lanes(out)]


def conversation(version: int, client: int, server: int) -> list[bytes]:
    """SYN, SYN with ACK, and data of both sides, as frames."""
    a, b = (bytes([10, 0, server, n]) if version == 4 else bytes(14) + bytes([server, n]) for n in (client, 200))
    frames = []
    for source, target, ports, flags in ((a, b, (40000, 80), 2), (b, a, (80, 40000), 0x12), (a, b, (40000, 80), 16),
                                         (b, a, (80, 40000), 16)):  # fmt: skip
        segment = bytearray(captures.tcp(b"", *ports))
        segment[13] = flags
        ip = captures.ipv4 if version == 4 else captures.ipv6
        frames.append(captures.ether(ip(bytes(segment), 6, source, target), 0x0800 if version == 4 else 0x86DD))
    return frames


ARP = captures.ether(bytes(28), 0x0806)


@pytest.mark.parametrize("mode", ["router", "bridge", "client", "server", "first", "flow"])
@pytest.mark.parametrize("version", [4, 6])
def test_clients_are_primary(mode: str, version: int) -> None:
    packets = conversation(version, 1, 9) + conversation(version, 2, 9) + [ARP]
    assert lanes(Plan(mode), packets) == [0, 1, 0, 1] * 2 + [0]
    assert lanes(Plan(mode, reverse=True), packets) == [1, 0, 1, 0] * 2 + [0]
    assert lanes(Plan(mode, nonip=True), packets)[-1] == 1


def test_flow_splits_what_hosts_cannot() -> None:
    """A host that is client here and server there; a flow that was met in the middle."""
    packets = conversation(4, 200, 7) + conversation(4, 1, 9)
    middle = conversation(4, 3, 9)[1:]
    assert lanes(Plan("flow"), [*packets, *middle]) == [0, 1, 0, 1] * 2 + [1, 0, 1]


def test_lists() -> None:
    packets = [*conversation(4, 1, 9), *conversation(6, 1, 9), ARP]
    assert lanes(Plan("cidr", "10.0.9.1/32,[::9c8/128]"), packets) == [0, 1, 0, 1, 1, 0, 1, 0, 0]
    assert lanes(Plan("cidr", "[::900/120]"), packets) == [1] * 4 + [0] * 4 + [0]
    assert lanes(Plan("regex", r"^10\..*\.1$"), packets) == [0, 1, 0, 1, 1, 1, 1, 1, 0]
    assert lanes(Plan("regex", r"^10\..*\.1$", reverse=True), packets) == [1, 0, 1, 0, 0, 0, 0, 0, 0]
    assert lanes(Plan("mac", "02:00:00:00:00:01"), packets) == [0] * 9
    assert lanes(Plan("port"), packets) == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert lanes(Plan("port", ports=parse_services(["x 40000/tcp # y"])), packets)[:2] == [1, 0]


@pytest.mark.parametrize(
    ("rule", "sent"),
    [
        (("S:10.0.9.1", False), [0, 2]), (("S:10.0.9.1", True), [1, 3]), (("D:10.0.9.1", False), [1, 3]),
        (("B:10.0.9.0/24", False), [0, 1, 2, 3]), (("B:10.0.9.1", False), []), (("E:10.0.9.1", True), []),
        (("P:2-3", False), [1, 2]), (("P:2-3", True), [0, 3]),
    ],
)  # fmt: skip
def test_rules(rule: tuple[str, bool], sent: list[int]) -> None:
    for mode in ("port", "flow", "client"):
        found = lanes(Plan(mode), conversation(4, 1, 9), rule)
        assert [k for k, lane in enumerate(found) if lane < 2] == sent


def test_a_filter_as_rule(tmp_path: Path) -> None:
    (tmp_path / "in.pcap").write_bytes(captures.pcap([*conversation(4, 1, 9), ARP]))
    command: list = [
        *COMMAND,
        "--split",
        "port",
        "--split-include",
        "F:dst port 80",
        "--write-cache",
        tmp_path / "cache",
        "-v",
    ]
    result = subprocess.run([*command, tmp_path / "in.pcap"], capture_output=True, text=True, timeout=10)
    assert "primary 2, secondary 0, not sent 3" in result.stderr


def test_caches_go_round() -> None:
    chance = random.Random(4)
    for count in (0, 1, 3, 4, 5, 1000):
        wanted = [chance.randrange(3) for _ in range(count)]
        batch = captures.one_batch([bytes(20)] * max(count, 1))
        writer = CacheWriter("a comment")
        for k, lane in enumerate(wanted):
            _sides.set_lanes(batch, lane, k, k + 1)
        if count:
            writer(batch)
            _sides.set_lanes(batch, 0)
            (read,) = Cached(writer.bytes(), "x").feed(batch)
            assert _sides.lanes(read) == wanted
            with pytest.raises(InputError, match="has more"):
                list(Cached(writer.bytes(), "x").feed(captures.one_batch([bytes(20)] * (count + 1))))
            for size in range(len(writer.bytes())):
                with pytest.raises(InputError):
                    list(Cached(writer.bytes()[:size], "x").feed(batch))


def test_wrong_modes_and_rules() -> None:
    for bad in ("", "x", "cidr", "cidr:", "cidr:x", "port:80", "regex:(", "mac:00:11", "mac:zz:zz:zz:zz:zz:zz"):
        with pytest.raises(ValueError):
            parse_mode(bad)
    for bad in ("", "S", "S:", "X:1", "S:300.0.0.0", "P:x"):
        with pytest.raises(ValueError):
            parse_rule(bad, False)
