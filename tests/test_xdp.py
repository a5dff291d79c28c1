"""Sending through AF_XDP: byte for byte, in order, and everything that does not go is told.

What all back-ends have in common is tested in test_inject.py. Functions whose names begin with `in_` run in a private
network (see namespace.py).
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path

import captures
import namespace
import pytest
from test_inject import batch_of, ethernet, numbered, send_all
from test_replay import frame, replay, write

from pcaptools.core.batch import Record
from pcaptools.errors import DeviceError
from pcaptools.net.inject import open_device, open_devices

TOP = Path(__file__).parent.parent


def test_every_packet_is_told_as_what_became_of_it(tmp_path: Path) -> None:
    """Against a kernel of our own, which drops packets, has no room, and takes a few at a time."""
    flags = ["-std=gnu99", "-g", "-O1", "-Wall", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    source = TOP / "tests" / "native" / "xdp.c"
    include = f"-I{TOP / 'pcaptools' / 'net' / 'csrc'}"
    subprocess.run(["cc", *flags, include, source, "-o", tmp_path / "xdp"], check=True, timeout=60)
    for seed in ("1", "2"):
        subprocess.run([tmp_path / "xdp", seed], check=True, timeout=60)


def in_wireshark(path: str, directory: str) -> tuple[str, list[str]]:
    """What Wireshark's dumpcap at the other end writes to a file."""
    received = f"{directory}/received.pcap"
    count = str(len(captures.packets(Path(path).read_bytes())))
    command = [captures.tool("dumpcap"), "-q", "-i", "pt1", "-P", "-w", received, "-c", count]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as dumpcap:
        assert dumpcap.stderr
        while not dumpcap.stderr.readline().startswith("File:"):
            pass
        result = replay("--xdp", "-i", "pt0", "--json", "-x", "20", path)
        dumpcap.communicate(timeout=10)
    return result.stderr, [data.hex() for *_, data in captures.packets(Path(received).read_bytes())]


def test_wireshark_at_the_peer_sees_the_capture(tmp_path: Path) -> None:
    sizes = [60, 61, 1514, 64, 1000] * 100
    records = [(1, k * 1_000_000, frame(k, size), size) for k, size in enumerate(sizes)]
    path = tmp_path / "in.pcap"
    path.write_bytes(captures.pcap(records, magic=0xA1B23C4D))
    said, received = namespace.call(in_wireshark, str(path), str(tmp_path))
    assert said == ""
    assert received == [data.hex() for *_, data, _ in records]


def tap() -> int:
    """A TAP device that nobody reads: it holds 500 packets and drops the others."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"tap0", 0x1002))  # TUNSETIFF, IFF_TAP | IFF_NO_PI
    subprocess.run(["ip", "link", "set", "tap0", "addrgenmode", "none"], check=True)
    namespace.set_link("tap0", True)
    return fd


def read_all(fd: int) -> list[bytes]:
    found = []
    try:
        while True:
            found.append(os.read(fd, 2000))
    except BlockingIOError:
        return found


def in_full_device() -> None:
    if not os.access("/dev/net/tun", os.W_OK):
        return
    fd = tap()
    frames = numbered(2000)
    with open_device("tap0", backend="xdp") as injector:
        for _ in range(3):
            before = injector.sender.sent
            batch = batch_of(frames)
            send_all(injector, batch)
            kept = [frames[k] for k in range(2000) if not Record._make(batch.record(k)).flags & 2]
            arrived = read_all(fd)
            assert 400 < len(arrived) < 2000
            assert arrived == kept
            assert injector.sender.sent - before == len(arrived)
        lost = sum(injector.sender.failed.values())
        assert injector.sender.sent + lost == 6000
        assert injector.interfaces()[0]["failed"] == lost


def test_what_a_device_drops_is_not_counted_as_sent() -> None:
    namespace.call(in_full_device)


def in_no_carrier() -> None:
    namespace.set_link("pt1", False)
    with open_device("pt0", backend="xdp") as injector:
        assert injector.warning == "pt0: no carrier: packets may go nowhere"
        send_all(injector, batch_of(numbered(3000)))
        assert (injector.sender.sent, sum(injector.sender.failed.values())) == (0, 3000)
    namespace.set_link("pt1", True)
    with open_device("pt0", backend="xdp") as injector, namespace.Receiver("pt1") as receiver:
        send_all(injector, batch_of(numbered(3000)))
        assert [one.data for one in receiver.frames(3000)] == numbered(3000)
        assert injector.sender.failed == {}


def test_no_carrier() -> None:
    namespace.call(in_no_carrier)


def in_jumbo() -> None:
    with open_device("pt0", backend="xdp") as injector, namespace.Receiver("pt1", size=4200) as receiver:
        assert injector.warning == "pt0: AF_XDP takes 4092 bytes a packet: longer ones count as beyond the MTU"
        batch = batch_of([ethernet(4092), ethernet(4093), ethernet(4096, 0, b"\x81\0"), ethernet(4097), ethernet(9000)])
        assert injector.mark_unfit(batch, 0, 5)["long"] == 3
        send_all(injector, batch)
        assert [len(one.data) for one in receiver.frames(2)] == [4092, 4096]
        send_all(injector, batch_of([ethernet(60), ethernet(4097), ethernet(61)]))
        assert [len(one.data) for one in receiver.frames(2)] == [60, 61]
        assert (injector.sender.sent, sum(injector.sender.failed.values())) == (4, 1)


def test_frames_beyond_a_page_are_counted() -> None:
    namespace.call(in_jumbo, mtu=9000)


def in_devices(path: str) -> None:
    """Two devices, and again at once: the kernel gives a queue back late."""
    for _ in range(2):
        with namespace.Receiver("pt1") as one, namespace.Receiver("pt0") as two:
            result = replay("--xdp", "-i", "pt0", "-I", "pt1", "--split", "port", "-t", "--json", path)
            assert (result.returncode, result.stderr) == (0, "")
            assert [len(receiver.frames(3, 1)) for receiver in (one, two)] == [3, 2]


def test_two_devices(tmp_path: Path) -> None:
    there, back = captures.udp(b"?"), captures.udp(b"!", 53, 49152)
    packets = [captures.ether(captures.ipv4(data, 17)) for data in (there, back, there, back, there)]
    (tmp_path / "in.pcap").write_bytes(captures.pcap(packets))
    namespace.call(in_devices, str(tmp_path / "in.pcap"))


def in_threads(path: str) -> None:
    """Each thread has a queue of the device: with one queue there is no second thread."""
    result = replay("--xdp", "-i", "pt0", "--threads", 2, "-t", path)
    assert result.stderr == "pcapreplay: pt0: AF_XDP finds no queue 1 there: fewer --threads, or leave --xdp out\n"
    subprocess.run(["ip", "link", "del", "pt0"], check=True)
    end = "numtxqueues 2 numrxqueues 2"
    subprocess.run(f"ip link add pt0 {end} type veth peer name pt1 {end}".split(), check=True)
    for device in ("pt0", "pt1"):
        namespace.set_link(device, True)
    with namespace.Receiver("pt1") as receiver:
        result = replay("--xdp", "-i", "pt0", "--threads", 2, "-t", "-q", path)
        assert (result.returncode, result.stderr) == (0, "")
        arrived = [one.data for one in receiver.frames(1100, 1) if one.data[12:14] == b"\x08\0"]  # and the kernel's own
    sent = [data for *_, data in captures.packets(Path(path).read_bytes())]
    assert len(arrived) == 1000
    for port in range(5000, 5010):
        ours = [data for data in sent if data[34:36] == port.to_bytes(2, "big")]
        assert [data for data in arrived if data[34:36] == port.to_bytes(2, "big")] == ours


def test_threads(tmp_path: Path) -> None:
    packets = [
        captures.ether(captures.ipv4(captures.udp(struct.pack("!I", k), 5000 + k % 10), 17)) for k in range(1000)
    ]
    (tmp_path / "in.pcap").write_bytes(captures.pcap(packets))
    namespace.call(in_threads, str(tmp_path / "in.pcap"))


def in_refusals(path: str) -> None:
    with pytest.raises(DeviceError, match="pt0: AF_XDP is for Ethernet devices"):
        from pcaptools.net.device import Device
        from pcaptools.net.xdp import open_frames

        device = Device("pt0")
        device.header = 0
        open_frames([device])
    with open_devices(["pt0"], backend="xdp"):
        result = replay("--xdp", "-i", "pt0", "-t", path)
        assert result.stderr == "pcapreplay: pt0: another AF_XDP socket has its queue 0\n"
    for more in (["--to-host", "02:00:00:00:00:09"], ["--no-qdisc-bypass"]):
        result = replay("--xdp", "-i", "pt0", *more, path)
        assert result.stderr == "pcapreplay: AF_XDP sends whole frames, and past the queueing discipline\n"
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
    result = replay("--xdp", "-i", "pt0", path)
    assert result.returncode == 2
    assert result.stderr == (
        "pcapreplay: pt0: AF_XDP needs 4 MiB of locked memory, more than ulimit -l allows: raise it, or run it with "
        "sudo\n"
    )


def test_refusals(tmp_path: Path) -> None:
    namespace.call(in_refusals, str(write(tmp_path / "a", [0])))


def in_pace(path: str) -> dict:
    with namespace.Receiver("pt1") as receiver:
        result = replay("--backend", "xdp", "-i", "pt0", "--json", path)
        assert (result.returncode, result.stderr) == (0, "")
        assert len(receiver.frames(200)) == 200
        return json.loads(result.stdout)


def test_the_pace_is_the_same(tmp_path: Path) -> None:
    report = namespace.call(in_pace, str(write(tmp_path / "a", [k * 1_000_000 for k in range(200)])))
    assert report["packets"] == 200 and report["duration_ns"] >= 199_000_000
    assert 0 < report["schedule_error_ns"]["median"] < 20_000_000


def test_nothing_of_it_is_needed_elsewhere() -> None:
    """The module is imported only when it is asked for."""
    code = "import sys, pcaptools.net.inject; sys.exit('pcaptools.net.xdp' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
