"""The measurements that send packets. Runs inside a network namespace of its own (unshare -rn), which it fills with
the devices that it needs, and prints what it found as JSON:

    network.py topspeed|schedule CAPTURE --bin DIR --rounds N [--sendmmsg PROGRAM]
    network.py live DIRECTORY --bin DIR --rounds N          # see live.py
"""

from __future__ import annotations

import argparse
import json
import mmap
import re
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, NamedTuple

from captures import CLIENT_MAC, SERVER_MAC
from live import live
from measure import Failed, Missing, Run, alternate, command, medians, program, run, unwind_on_signals

# linux/if_packet.h, asm-generic/socket.h
SOL_PACKET, PACKET_RX_RING, PACKET_VERSION, TPACKET_V2 = 263, 5, 10, 1
SO_TIMESTAMPNS = 35
ETH_P_ALL = 3
TP_STATUS_USER = 1
FRAME_BYTES, BLOCK_BYTES = 128, 1 << 16
FRAME = struct.Struct("=IIIHHII104x")


class Errors(NamedTuple):
    """How late packets came, ms, relative to the least late one of the run."""

    median: float
    p99: float
    max: float
    last: float


class Ring:
    """A passive receiver: the kernel stores time and first bytes of every packet; nobody wakes up for them.

    A TPACKET_V2 ring large enough for all packets (kernel: Documentation/networking/packet_mmap.rst), read when
    the sender is done, so that the receiver takes no CPU time from it.
    """

    def __init__(self, device: str, packets: int) -> None:
        blocks = (packets + 1024) * FRAME_BYTES // BLOCK_BYTES + 1
        request = struct.pack("=IIII", BLOCK_BYTES, blocks, FRAME_BYTES, blocks * BLOCK_BYTES // FRAME_BYTES)
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.setsockopt(SOL_PACKET, PACKET_RX_RING, request)
        self.map = mmap.mmap(self.socket.fileno(), blocks * BLOCK_BYTES)
        self.socket.bind((device, ETH_P_ALL))

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, *exception: object) -> None:
        self.map.close()
        self.socket.close()

    def times(self) -> list[int]:
        """When each packet of the generator arrived, ns."""
        found = []
        data = self.map[:]
        for number, (status, _, _, mac, _, seconds, nanoseconds) in enumerate(FRAME.iter_unpack(data)):
            source = number * FRAME_BYTES + mac + 6
            if status & TP_STATUS_USER and data[source : source + 6] in (CLIENT_MAC, SERVER_MAC):
                found.append(seconds * 1_000_000_000 + nanoseconds)
        return found


def topspeed(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows: the sending itself by each program's own report, and the whole process; into ifb, and across veth."""
    _ip("link", "add", "ifb0", "type", "ifb")
    _ip("link", "set", "ifb0", "up")
    runs = _send_all(args, "ifb0", ("pcapreplay", "threads", "xdp", "sendmmsg", "tcpreplay", "tcpreplay -K"))
    packets = len(_times(args.capture))
    bounds = {"sendmmsg": "<= 1.07", "tcpreplay": ">= 1.75", "tcpreplay -K": ">= 1.3"}
    per_packet: dict[str, Callable[[Run], float]] = {
        "sending": lambda one: 1e9 / _rate(one),
        "wall": lambda one: 1e9 * one.wall / packets,
    }
    for what, value in per_packet.items():
        found = medians(runs, value)
        for peer, bound in bounds.items():
            yield _row(what, "ns/packet", found["pcapreplay"], peer, found[peer], bound)
        if what == "sending":
            yield _row("sending, 2 threads", "ns/packet", found["threads"], "tcpreplay", found["tcpreplay"], ">= 2.5")
            yield _row("sending, AF_XDP", "ns/packet", found["xdp"], "pcapreplay", found["pcapreplay"], "")
    _veth()
    found = medians(_send_all(args, "sender", ("pcapreplay", "xdp", "tcpreplay")), per_packet["sending"])
    yield _row("across veth", "ns/packet", found["pcapreplay"], "tcpreplay", found["tcpreplay"], ">= 1.4")
    yield _row("across veth, AF_XDP", "ns/packet", found["xdp"], "pcapreplay", found["pcapreplay"], "")


def _send_all(args: argparse.Namespace, device: str, names: tuple[str, ...]) -> dict[str, list[Run]]:
    """The capture at top speed by each program in turn. Raises Failed when one does not send all of it."""
    ours = [*command(args.bin, "pcapreplay"), "-i", device, "--topspeed", args.capture]
    tcpreplay = [program("tcpreplay"), "-i", device, "--topspeed", args.capture]
    contenders = {
        "pcapreplay": ours,
        "threads": [*ours, "--threads", "2"],
        "xdp": [*ours, "--xdp"],
        "sendmmsg": [args.sendmmsg, device, args.capture],
        "tcpreplay": tcpreplay,
        "tcpreplay -K": [*tcpreplay[:-1], "-K", "--no-flow-stats", args.capture],
    }
    packets = len(_times(args.capture))

    def send(argv: list[str]) -> Run:
        result = run(argv)
        if _sent(result) != packets:
            raise Failed(f"{' '.join(argv)}: sent {_sent(result)} packets of {packets}")
        return result

    return alternate({name: _bind(send, contenders[name]) for name in names}, args.rounds)


def _veth() -> None:
    _ip("link", "add", "sender", "type", "veth", "peer", "name", "receiver")
    for device in ("sender", "receiver"):
        _ip("link", "set", device, "addrgenmode", "none", "up")


def schedule(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows: errors against the recorded times, by the receiving kernel's clock."""
    _veth()
    due = _times(args.capture)
    contenders = {
        "pcapreplay": [*command(args.bin, "pcapreplay"), "-i", "sender", args.capture],
        "tcpreplay": [program("tcpreplay"), "-i", "sender", args.capture],
    }

    def send(argv: list[str]) -> Errors:
        with Ring("receiver", len(due)) as ring:
            run(argv)
            arrived = ring.times()
        if len(arrived) != len(due):
            raise Failed(f"{' '.join(argv)}: {len(arrived)} packets of {len(due)} arrived")
        return _errors(due, arrived)

    runs = alternate({name: _bind(send, argv) for name, argv in contenders.items()}, args.rounds)
    bounds = {"median": ("", False), "p99": (">= 100", False), "max": ("", False), "last": ("<= 1", True)}
    for what, (bound, absolute) in bounds.items():
        found = medians(runs, attrgetter(what))
        yield _row(what, "ms", found["pcapreplay"], "tcpreplay", found["tcpreplay"], bound) | {"absolute": absolute}


def _errors(due: list[int], arrived: list[int]) -> Errors:
    delays = [there - here for here, there in zip(due, arrived, strict=True)]
    least = min(delays)
    ordered = sorted(delays)
    chosen = (ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], ordered[-1], delays[-1])
    return Errors(*((delay - least) / 1e6 for delay in chosen))


def _times(path: str) -> list[int]:
    """The times of a capture of captures.py, ns."""
    with open(path, "rb") as file:
        data = file.read()
    times, offset = [], 24
    while offset < len(data):
        seconds, microseconds, length = struct.unpack_from("<III", data, offset)
        times.append((seconds * 1_000_000 + microseconds) * 1000)
        offset += 16 + length
    return times


def _sent(one: Run) -> int:
    found = re.search(r"(\d+) packets", one.said)
    return int(found[1]) if found else 0


def _rate(one: Run) -> float:
    """Packets per second."""
    found = re.search(r"([\d.]+) pps", one.said)
    if not found:
        raise Failed(f"no rate in the report:\n{one.said}")
    return float(found[1])


def _row(what: str, unit: str, ours: float, peer_name: str, peer: float, bound: str) -> dict[str, Any]:
    return {"what": what, "unit": unit, "ours": ours, "peer_name": peer_name, "peer": peer, "bound": bound}


def _ip(*args: str) -> None:
    run([program("ip"), *args])


def _bind(measured: Callable[[list[str]], Any], argv: list[str]) -> Callable[[], Any]:
    return lambda: measured(argv)


PARTS = {"topspeed": topspeed, "schedule": schedule, "live": live}


def main() -> int:
    """Measure one part; returns the exit status."""
    parser = argparse.ArgumentParser(description="Measure programs that send, in this network namespace.")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("capture", help="of live: a directory to work in")
    parser.add_argument("--bin", required=True, help="the directory of the commands")
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--sendmmsg", help="the compiled sendmmsg.c")
    args = parser.parse_args()
    unwind_on_signals()
    found: dict[str, Any] = {"rows": [], "problems": []}
    try:
        found["rows"] = list(PARTS[args.part](args))
    except Missing as missing:
        found["problems"].append(f"{missing} is not there")
    except Failed as failure:
        found["problems"].append(str(failure))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
