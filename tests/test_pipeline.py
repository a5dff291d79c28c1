"""The three commands in one pipe, on real captures, onto a wire; and what every command does when it is interrupted."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import namespace
import pytest
from captures import MISSING, ROOT, pcap_header, tshark

BIN = Path(sys.executable).parent
MAP = "0.0.0.0/0:64.0.0.0/2,[::/0]:[2001:db8::/32]"
MAC = "02:00:00:00:00:02"

# Ethernet, sound, no checksum wrong in the recording that --fixcsum could not set right, nothing larger than the wire.
REAL = (
    "http/zeek__methods.pcap",
    "live-tcp/packetnet__ipv6_http.pcap",
    "live-tcp/zeek__iso-download.pcap.gz",
    "encap/peafowl__802.1Q_dvlan.cap",
    "pcapng/pyshark__capture_test.pcapng",
    "formats/nprint__example_port80.pcap",
    "formats/dnscap__dns.pcap.zst",
    "formats/wireshark__dhcp-nanosecond.pcap",
    "fragments/PcapPlusPlus__ipv6-frag.pcap",
)
SUMS = ("ip.checksum.status", "tcp.checksum.status", "udp.checksum.status", "icmp.checksum.status")


def _pipeline(archive: str, count: int) -> list[tuple[int, str]]:
    """In a namespace: what arrives, as (time in ns, hex of the frame)."""
    with namespace.Receiver("pt1", capacity=count + 64, size=65600) as receiver:
        command = (
            f"tarpcap x {archive} | pcaprewrite --srcipmap {MAP} --dstipmap {MAP} --enet-dmac {MAC} --fixcsum | "
            "pcapreplay -i pt0 --pps 20000"
        )
        environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
        subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], env=environment, check=True, stdout=subprocess.DEVNULL
        )
        return [(frame.time, frame.data.hex()) for frame in receiver.frames(count)]


def test_real_captures_through_the_pipeline(tmp_path: Path) -> None:
    if not ROOT.is_dir():
        pytest.skip(MISSING)
    archive = tmp_path / "dump.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for path in REAL:
            tar.add(ROOT / path, arcname=path)
    before = [row for path in REAL for row in tshark(ROOT / path, ("frame.len", "ip.src", "ip.dst"))]
    frames = namespace.call(_pipeline, str(archive), len(before), mtu=65535, timeout=60)
    assert len(frames) == len(before)

    arrived = tmp_path / "arrived.pcap"
    with arrived.open("wb") as file:
        file.write(pcap_header(magic=0xA1B23C4D))
        for stamp, text in frames:
            data = bytes.fromhex(text)
            file.write(struct.pack("<IIII", *divmod(stamp, 1_000_000_000), len(data), len(data)) + data)
    after = tshark(arrived, ("frame.len", "eth.dst", "ip.src", "ip.dst", "ipv6.src", *SUMS))
    for was, now in zip(before, after, strict=True):
        assert now["frame.len"] == was["frame.len"]
        assert now["eth.dst"] == [MAC]
        for side in ("ip.src", "ip.dst"):
            assert now[side] == [_mapped(address) for address in was[side]]
        assert all(address.startswith("2001:db8:") for address in now["ipv6.src"])
        assert not any("0" in now[field] for field in SUMS), "tshark: 0 is a wrong checksum"


def _mapped(address: str) -> str:
    first, rest = address.split(".", 1)
    return f"{64 | int(first) & 63}.{rest}"


def _start(command: str, *arguments: str, **options: object) -> subprocess.Popen:
    return subprocess.Popen([str(BIN / command), *arguments], **options)  # type: ignore[call-overload]


def _end(process: subprocess.Popen, number: int) -> float:
    """Send a signal; seconds until the process has ended."""
    start = time.monotonic()
    process.send_signal(number)
    process.wait(timeout=10)
    return time.monotonic() - start


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupted_edit_leaves_nothing(tmp_path: Path, number: int, status: int) -> None:
    out = tmp_path / "out.pcap"
    process = _start("pcaprewrite", "-w", str(out), stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.write(pcap_header())
    process.stdin.flush()
    deadline = time.monotonic() + 10
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(tmp_path.iterdir()), "it never began to write"
    assert _end(process, number) < 1
    assert process.returncode == status
    assert list(tmp_path.iterdir()) == []


def _interrupted_replay(capture: str) -> list:
    """In a namespace: interrupt a replay inside a wait of an hour; (seconds, status, report)."""
    process = _start("pcapreplay", "-i", "pt0", capture, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with namespace.Receiver("pt1") as receiver:
        assert receiver.frames(1, timeout=10)
    seconds = _end(process, signal.SIGINT)
    return [seconds, process.returncode, *process.communicate()]


def test_an_interrupted_replay_reports(tmp_path: Path) -> None:
    capture = tmp_path / "slow.pcap"
    frame = bytes.fromhex("02000000000202000000000188b5") + bytes(46)
    records = b"".join(struct.pack("<IIII", at * 3600, 0, 60, 60) + frame for at in range(2))
    capture.write_bytes(pcap_header() + records)
    seconds, status, report, errors = namespace.call(_interrupted_replay, str(capture))
    assert status == 130
    assert seconds < 1, "a benchmark says how fast; this says that it does not wait for the hour"
    assert report.startswith("Actual: 1 packets (60 bytes) sent in ")
    assert errors == ""


def test_the_demo_runs() -> None:
    namespace.skip_unless_possible()
    demo = Path(__file__).parent.parent / "packaging" / "demo.py"
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    result = subprocess.run([sys.executable, demo], env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "arrived:  3000 of 3000 packets; 3000 with an address mapped" in result.stdout
    assert "checksums: 6000 right, 0 wrong" in result.stdout
