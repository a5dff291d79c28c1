"""Capturing from a device, and pcapsessions on one: in private networks, against what was sent and the kernel counts.

Functions whose names begin with `in_` run in a private network (see namespace.py and livenet.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import captures
import livenet
import namespace
import pytest
import simulation
from livenet import HOST4, HOST6, Host

from pcaptools.core.batch import Batch
from pcaptools.errors import DeviceError, UsageError
from pcaptools.files.bpf import compile_filter
from pcaptools.files.capture import open_capture
from pcaptools.net.ring import open_live

MIB = 1 << 20
COMMAND = Path(__file__).resolve().parent.parent / "bin" / "pcapsessions"

needs_servers = pytest.mark.skipif(
    bool(livenet.have("nginx", "nft", "nsenter", "ethtool")), reason="nginx, nft, nsenter or ethtool is missing"
)

# --- the ring -----------------------------------------------------------------------------------------------------


def tcp_frames(count: int, size: int = 100) -> list[bytes]:
    return [
        captures.ether(captures.ipv4(captures.tcp(bytes([k % 256]) * size, sport=1024 + k), 6)) for k in range(count)
    ]


@contextmanager
def sender(device: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as packets:
        packets.bind((device, 0))
        yield packets


def received(source: Any, count: int, seconds: float = 3) -> list[tuple[int, int, bytes]]:
    """(time, wire length, bytes) of what arrives until it is so many or nothing came for a while."""
    found: list[tuple[int, int, bytes]] = []
    batch = Batch()
    until = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < until:
        source.wait(50)
        if source.receive(batch):
            found += [(record.time, record.wirelen, bytes(batch.packet(k))) for k, record in enumerate(batch.records())]
            until = time.monotonic() + seconds
    return found


def ring(device: str, expression: str | None = None, **options: Any) -> Any:
    return open_live(device, expression, compile_filter, **{"size": 4 * MIB, **options})


def in_whole(backend: str) -> None:
    frames = [frame for size in (0, 1, 17, 1400) for frame in tcp_frames(50, size)]
    options = {"backend": backend} if backend == "pypcap" else {}
    before = time.time_ns()
    with open_live("pt1", None, compile_filter, **options) if options else ring("pt1") as source:
        with sender("pt0") as out:
            for frame in frames:
                out.send(frame)
        got = received(source, len(frames))
        assert source.linktype == 1 and source.lost == source.again == 0
    assert [data for _, _, data in got] == frames
    assert [wire for _, wire, _ in got] == list(map(len, frames))
    times = [when for when, _, _ in got]
    assert times == sorted(times) and before <= times[0] <= times[-1] <= time.time_ns()


@pytest.mark.parametrize("backend", ["packet", "pypcap"])
def test_every_frame_is_a_record(backend: str) -> None:
    namespace.call(in_whole, backend)


def in_tagged() -> None:
    """The kernel takes the outermost tag off; it is there again."""
    plain = tcp_frames(1)[0]
    frames = [
        plain[:12] + struct.pack("!HH", 0x8100, 0x2005) + plain[12:],
        plain[:12] + struct.pack("!HH", 0x88A8, 7) + struct.pack("!HH", 0x8100, 8) + plain[12:],
        plain,
    ]
    with ring("pt1") as source, ring("pt1", "vlan 5") as filtered, sender("pt0") as out:
        for frame in frames:
            out.send(frame)
        assert [data for _, _, data in received(source, 3)] == frames
        assert filtered.unfiltered and not source.unfiltered


def test_vlan_tags_are_put_back() -> None:
    namespace.call(in_tagged)


def in_filtered() -> None:
    frames = tcp_frames(20, 200)
    with ring("pt1", "tcp src port 1030 or tcp src port 1031", snaplen=60) as source, sender("pt0") as out:
        for frame in frames:
            out.send(frame)
        got = received(source, 3, 0.25)
    assert [(wire, data) for _, wire, data in got] == [(len(frame), frame[:60]) for frame in frames[6:8]]


def test_the_kernel_filters_and_cuts() -> None:
    namespace.call(in_filtered)


def in_any() -> None:
    """Out of pt0 and into pt1: one packet, though two devices see it."""
    frames = tcp_frames(10)
    with ring("any") as source, ring("any", "inbound") as inbound, ring("any", "tcp src port 1024") as one:
        with sender("pt0") as out:
            for frame in frames:
                out.send(frame)
        got = received(source, 11, 0.25)
        assert [data[20:] for _, _, data in got] == [frame[14:] for frame in frames]
        assert {data[:2] for _, _, data in got} == {b"\x08\0"}  # LINUX_SLL2: its protocol
        assert (source.linktype, source.again, source.unfiltered) == (276, 10, False)
        assert inbound.unfiltered
        assert len(received(one, 2, 0.25)) == 1


def test_a_packet_that_passes_two_devices_is_taken_once() -> None:
    namespace.call(in_any)


def in_loopback() -> None:
    with ring("lo", "tcp") as source:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
            client.sendall(bytes(100_000))
            with server.accept()[0] as peer:
                left = 100_000
                while left:
                    left -= len(peer.recv(left))
        got = received(source, 1 << 20, 0.25)
    with_payload = [data for _, _, data in got if len(data) > 74]
    assert sum(len(data) - 66 for data in with_payload) == 100_000  # none of them twice
    assert max(map(len, with_payload)) > 10_000


def test_loopback_gives_each_packet_once_and_large_ones_whole() -> None:
    namespace.call(in_loopback)


def in_overflow() -> None:
    frames = tcp_frames(2000, 1400)
    with ring("pt1", size=MIB) as source:
        with sender("pt0") as out:
            for frame in frames:
                out.send(frame)
        got = received(source, len(frames), 0.25)
        assert 0 < len(got) < len(frames)
        assert len(got) + source.lost == len(frames)
        assert [data for _, _, data in got] == frames[: len(got)]


def test_what_the_ring_has_no_room_for_is_counted() -> None:
    namespace.call(in_overflow)


def in_refusals() -> list[str]:
    said = []
    for attempt in (("nope",), ("pt1", "no filter"), ("any", "ether host 02:00:00:00:00:01 and foo")):
        with pytest.raises((DeviceError, UsageError)) as refused:
            ring(*attempt)
        said.append(str(refused.value))
    with ring("pt1") as source:
        namespace.set_link("pt1", False)
        with pytest.raises(DeviceError) as refused:
            received(source, 1)
        said.append(str(refused.value))
    with pytest.raises(DeviceError) as refused:
        ring("pt1")
    return [*said, str(refused.value)]


def test_refusals_say_what_is_wrong() -> None:
    said = namespace.call(in_refusals)
    assert said[0].startswith("nope: no such device; there are: ")
    assert said[1].startswith("filter 'no filter': ")
    assert said[2].startswith("filter 'ether host 02:00:00:00:00:01 and foo': ")
    assert said[3] == "pt1: Network is down: nothing more can be captured"
    assert said[4] == "pt1: the device is down: ip link set pt1 up"


def in_tunnel() -> None:
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
    namespace.set_link("tun0", True)
    packet = captures.ipv4(captures.tcp(b"x"), 6)
    with ring("tun0", "tcp") as source:
        os.write(device, packet)
        assert [data for _, _, data in received(source, 1)] == [packet]
        assert source.linktype == 101


def test_a_device_without_link_headers() -> None:
    namespace.call(in_tunnel)


# --- the command --------------------------------------------------------------------------------------------------


class Watch:
    """pcapsessions, running; host: over there, else here. It captures once this is made."""

    def __init__(self, *arguments: str, host: Host | None = None) -> None:
        command = [sys.executable, str(COMMAND), *arguments]
        options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = host.start(command, **options) if host else subprocess.Popen(command, **options)
        until = time.monotonic() + 10
        while time.monotonic() < until and self.process.poll() is None:
            rows = (
                host.run(["cat", "/proc/net/packet"]) if host else Path("/proc/net/packet").read_text()
            ).splitlines()
            if any(row.split()[5] == "1" for row in rows[1:]):  # Running
                return
            time.sleep(0.02)
        raise AssertionError(self.process.communicate(timeout=5))

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout
        return self.process.stdout.readline()

    def end(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        """Exit status and what was printed since."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


def settle() -> None:
    """Let what was sent arrive: the kernel hands a block of the ring over after 20 ms."""
    time.sleep(0.2)


def in_losses(version: int) -> dict[str, Any]:
    """nginx, from which every 33rd packet or so is lost on its way here; watched where it sends."""
    with Host() as host:
        host.nginx({"large": os.urandom(200_000)})
        for device, inside in (("pt1", host.inside()), ("pt0", [])):
            whole = ["ethtool", "-K", device, "tso", "off", "gso", "off", "gro", "off"]
            subprocess.run([*inside, *whole], check=True, capture_output=True, timeout=10)
        watch = Watch("-i", "pt1", "--all", "--json", "tcp port 80", host=host)
        chains = "".join(
            f"chain {hook} {{ type filter hook {hook} priority 0; tcp {end} 80 numgen random mod 100 < 3 drop; }}\n"
            for hook, end in (("input", "sport"), ("output", "dport"))
        )
        subprocess.run(["nft", "-f", "-"], input=f"table inet loss {{\n{chains}}}\n", text=True, check=True, timeout=10)
        before = retransmissions(host)
        for _ in range(4):
            with socket.create_connection((HOST4 if version == 4 else HOST6, 80), 20) as client:
                client.sendall(b"GET /large HTTP/1.0\r\n\r\n")
                while client.recv(65536):
                    pass
        time.sleep(0.8)
        counted = retransmissions(host) - before
        status, out, err = watch.end()
    sessions = [json.loads(line) for line in out.splitlines()]
    shown = sum(session["sent"]["server"]["analysis"].get("retransmission", 0) for session in sessions)
    return {"counted": counted, "shown": shown, "sessions": len(sessions), "status": status, "err": err}


def retransmissions(host: Host) -> int:
    """TcpRetransSegs over there."""
    names, values = (
        line.split() for line in host.run(["cat", "/proc/net/snmp"]).splitlines() if line.startswith("Tcp:")
    )
    return int(values[names.index("RetransSegs")])


@needs_servers
@pytest.mark.parametrize("version", [4, 6])
def test_retransmissions_are_those_that_the_kernel_counts(version: int) -> None:
    result = namespace.call(in_losses, version, timeout=60)
    assert result["counted"] > 0
    assert (result["shown"], result["sessions"]) == (result["counted"], 4)
    assert (result["status"], result["err"]) == (130, "")


def in_vlan() -> tuple[int, str, str]:
    """A session in VLAN 5 and one in none. The kernel takes the tag off, and cannot filter by it."""
    frames = simulation.frames([("C", b"hello"), ("S", b"bye")])
    watch = Watch("-i", "pt1", "--all", "-q", "--verbose", "--quiet", "vlan 5 and tcp")
    with sender("pt0") as out:
        for _, _, frame, _ in frames:
            out.send(frame[:12] + struct.pack("!HH", 0x8100, 5) + frame[12:])
            out.send(frame)
    settle()
    return watch.end()


def test_a_session_in_a_vlan() -> None:
    status, out, err = namespace.call(in_vlan)
    heads = [line for line in out.splitlines() if " == " in line]
    assert len(heads) == 1, out
    assert status == 130
    balance = re.fullmatch(r"pcapsessions: in (\d+) = out (\d+) \+ dropped (\d+) \(\3 filtered\)\n", err)
    assert balance and balance[2] == balance[3], err


def in_reports() -> dict[str, Any]:
    """A server that answers, a port that refuses, one that drops; a report on request, and the rest at the end."""
    table = "table inet quiet {\nchain in { type filter hook input priority 0; tcp dport 9 drop; }\n}\n"
    subprocess.run(["nft", "-f", "-"], input=table, text=True, check=True, timeout=10)
    recorded = livenet.scratch() / "seen.pcap"
    watch = Watch("-i", "lo", "-q", "-w", str(recorded), "tcp")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", 1), 1)
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", 9), 0.1)
            settle()
            watch.process.send_signal(signal.SIGUSR1)
            head = watch.line(), watch.line()
    settle()
    status, out, err = watch.end(signal.SIGTERM)
    count = sum(batch.n for batch in open_capture(str(recorded)))
    return {"port": port, "head": head, "status": status, "out": out, "err": err, "recorded": count}


@needs_servers
def test_signals_ask_for_a_report_or_for_the_end() -> None:
    result = namespace.call(in_reports)
    assert f"127.0.0.1:{result['port']} " in result["head"][0] and "open" in result["head"][1]
    assert result["status"] == 128 + signal.SIGTERM
    assert "refused by the server" in result["out"]
    assert re.search(r"no reply to (the SYN|\d SYNs)", result["out"])
    packets = int(re.findall(r"(\d+) packets, ", result["err"])[-1])
    assert result["recorded"] == packets > 8


def in_overload() -> dict[str, Any]:
    """More than the ring holds, while the command sleeps."""
    frames = tcp_frames(3000, 1000)
    watch = Watch("-i", "pt1", "--buffer", "1", "--summary", "--verbose", "tcp")
    watch.process.send_signal(signal.SIGSTOP)
    with sender("pt0") as out:
        for frame in frames:
            out.send(frame)
    watch.process.send_signal(signal.SIGCONT)
    settle()
    status, _, err = watch.end()
    return {"status": status, "err": err, "sent": len(frames)}


def test_what_the_kernel_drops_is_told() -> None:
    result = namespace.call(in_overload)
    lost = re.search(r"pt1: the kernel had no room for (\d+) packets", result["err"])
    balance = re.search(r"in (\d+) = out", result["err"])
    assert lost and balance and result["status"] == 130
    assert int(lost[1]) + int(balance[1]) == result["sent"]


def in_ways() -> list[tuple[int, str]]:
    """The same exchange, by all devices, in other words, as it comes, by libpcap."""
    found = []
    for options in (["-i", "any"], ["-i", "lo", "--live"], ["-i", "lo", "--backend", "pypcap", "--all"]):
        watch = Watch(*options, "-q", "--quiet", *(["--all"] if "any" in options else []), "--", "tcp")
        server = socket.create_server(("127.0.0.1", 0))
        with server, socket.create_connection(server.getsockname()) as client, server.accept()[0] as peer:
            client.sendall(b"x" * 100)
            peer.recv(100)
        settle()
        status, out, err = watch.end()
        assert not err, err
        found.append((status, out))
    return found


def test_all_devices_segments_as_they_come_and_libpcap() -> None:
    for status, out in namespace.call(in_ways):
        assert status == 130
        assert len(re.findall(r">----S->", out)) == len(re.findall(r"<-A--S-<", out)) == 1, out
        assert len(re.findall(r">-AP---> .*100 B", out)) == 1, out
        assert max(map(len, out.splitlines())) <= 80
