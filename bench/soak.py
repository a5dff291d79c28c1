"""A long replay across veth: does it drift? Runs pcapreplay for ten minutes in a network namespace of its own and says,
minute by minute, how late packets arrive relative to the least late one of the run.

    soak.py [--seconds 600] [--pps 2000] [--bin DIR] [--options "--no-spin"]

The capture has random gaps and is made on the way, through a pipe, so that nothing is stored. The receiving kernel's
times are those of its real-time clock; steps of that clock are taken out. Exit status 1 when packets are missing or
the last minute is later than the first one by more than a millisecond in the median.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import IO

from captures import CLIENT_MAC, SERVER_MAC
from measure import command, program, unwind_on_signals

SO_TIMESTAMPNS, SO_RCVBUFFORCE, ETH_P_ALL = 35, 33, 3
SECOND = 10**9
START = 1_700_000_000 * SECOND
ETHERTYPE = b"\x88\xb5"  # for experiments
MINUTE = 60 * SECOND


def due_times(packets: int, pps: float) -> Iterator[int]:
    """When each packet is due, ns after the first one: gaps at random, the last packet on the very end."""
    source = random.Random(1)
    due, end = 0.0, int(packets / pps * SECOND)
    for _ in range(packets - 1):
        yield min(int(due), end)
        due += source.expovariate(pps) * SECOND
    yield end


def write_capture(out: IO[bytes], packets: int, pps: float) -> None:
    """Nanosecond pcap of numbered frames."""
    with suppress(BrokenPipeError), out:
        out.write(struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1))
        for number, due in enumerate(due_times(packets, pps)):
            frame = SERVER_MAC + CLIENT_MAC + ETHERTYPE + struct.pack("!Q", number) + bytes(38)
            out.write(struct.pack("=IIII", *divmod(START + due, SECOND), len(frame), len(frame)) + frame)


def clocks_apart() -> int:
    """The real-time clock less the monotonic one, ns: the surest of a few readings."""
    readings = []
    for _ in range(5):
        before, real, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        readings.append((after - before, real - (before + after) // 2))
    return min(readings)[1]


class Arrivals(threading.Thread):
    """Notes when each packet arrives, by the monotonic clock, ns."""

    def __init__(self, device: str, packets: int) -> None:
        super().__init__(daemon=True)
        self.times: list[int] = []
        self._packets = packets
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        with suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self._socket.bind((device, ETH_P_ALL))

    def run(self) -> None:
        apart = clocks_apart()
        while len(self.times) < self._packets:
            if not len(self.times) % 1000:
                apart = clocks_apart()
            data, ancillary, _, _ = self._socket.recvmsg(22, 64)
            if data[12:14] != ETHERTYPE:
                continue
            assert int.from_bytes(data[14:22], "big") == len(self.times), "packets are missing, or out of order"
            seconds, nanoseconds = struct.unpack("=qq", ancillary[0][2])
            self.times.append(seconds * SECOND + nanoseconds - apart)


def soak(args: argparse.Namespace) -> int:
    """One replay; returns the exit status."""
    for line in ("link add sender type veth peer name receiver",
                 "link set sender addrgenmode none up", "link set receiver addrgenmode none up"):  # fmt: skip
        subprocess.run([program("ip"), *line.split()], check=True)
    packets = int(args.seconds * args.pps)
    arrivals = Arrivals("receiver", packets)
    arrivals.start()
    argv = [*command(args.bin, "pcapreplay"), "-i", "sender", *args.options.split()]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as replay:
        assert replay.stdin
        write_capture(replay.stdin, packets, args.pps)
        _, status, usage = os.wait4(replay.pid, 0)
        replay.returncode = os.waitstatus_to_exitcode(status)
    arrivals.join(5)
    print(f"CPU of pcapreplay: user {usage.ru_utime:.1f} s, system {usage.ru_stime:.1f} s; peak {usage.ru_maxrss} KiB")
    return told(list(due_times(packets, args.pps)), arrivals.times) or replay.returncode


def told(due: list[int], arrived: list[int]) -> int:
    """Say how late packets were in each minute; returns the exit status."""
    if len(arrived) != len(due):
        print(f"{len(arrived)} packets of {len(due)} arrived", file=sys.stderr)
        return 1
    delays = [there - here for here, there in zip(due, arrived, strict=True)]
    least = min(delays)
    minutes: dict[int, list[int]] = {}
    for here, delay in zip(due, delays, strict=True):
        minutes.setdefault(min(here, due[-1] - 1) // MINUTE, []).append(delay - least)
    print("minute   least  median     p99     max  us")
    for minute, late in minutes.items():
        late.sort()
        chosen = (late[0], late[len(late) // 2], late[len(late) * 99 // 100], late[-1])
        print(f"{minute:6}", *(f"{value / 1000:7.1f}" for value in chosen))
    drift = statistics.median(minutes[max(minutes)]) - statistics.median(minutes[0])
    span = arrived[-1] - arrived[0]
    print(f"last - first: {span / 1e9:.6f} s, in the capture {due[-1] / 1e9:.6f} s: {(span - due[-1]) / 1000:+.1f} us")
    print(f"drift, median of the last minute less that of the first: {drift / 1000:+.1f} us")
    return int(abs(drift) > 1_000_000)


def main() -> int:
    """Returns the exit status."""
    beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bin")
    parser = argparse.ArgumentParser(description="Look whether a long replay drifts.")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--pps", type=float, default=2000)
    parser.add_argument("--bin", default=beside, help="the directory of the commands")
    parser.add_argument("--options", default="", help="more options of pcapreplay")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    unwind_on_signals()
    if args.inside:
        return soak(args)
    how = "-n" if os.geteuid() == 0 else "-rn"
    return subprocess.call([program("unshare"), how, sys.executable, *sys.argv, "--inside"])


if __name__ == "__main__":
    sys.exit(main())
