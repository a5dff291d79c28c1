"""Private networks for tests: a namespace of its own with a veth pair, pt0 and pt1, and nothing else.

    result = namespace.run(["pcapreplay", "-i", "pt0", "in.pcap"])      # a command in such a network
    value = namespace.call(function, argument)                         # a function of a test module in one

    with namespace.Receiver("pt1") as receiver:                         # within it: what arrives
        ...
    frames = receiver.frames(3)

Both ends are up, in the same namespace, without IPv6 and ARP: nothing is on the wire but what the test sends. It works
with and without root, where the system allows `unshare -rn`; elsewhere the test is skipped, with the reason.
"""

from __future__ import annotations

import fcntl
import functools
import importlib
import json
import mmap
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any

import pytest

Frame = namedtuple("Frame", "time data")
"""A frame received: when, in ns since the epoch by the kernel's clock, and its bytes."""

# <linux/if_packet.h>
_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2, _PACKET_RX_RING = 263, 10, 1, 5
_ETH_P_ALL, _PACKET_OUTGOING, _TP_STATUS_USER, _TP_STATUS_VLAN = 3, 4, 0x1, 0x10

# netdevice(7)
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP, _IFF_RUNNING = 0x8913, 0x8914, 0x1, 0x40

_SETUP = """\
link add pt0 mtu {mtu} type veth peer name pt1 mtu {mtu}
link set pt0 addrgenmode none
link set pt1 addrgenmode none
link set pt0 arp off up
link set pt1 arp off up
link set lo up
"""


def run(
    command: Sequence[str], *, mtu: int = 1500, timeout: float = 30, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command in a fresh network; `options` are those of subprocess.run. Its output is captured as text."""
    skip_unless_possible()
    options = {"capture_output": True, "text": True, **options}
    inside = ["unshare", "-rn", sys.executable, __file__, "run", str(mtu), *command]
    return subprocess.run(inside, timeout=timeout, **options)


def call(function: Callable[..., Any], *arguments: Any, mtu: int = 1500, timeout: float = 30) -> Any:
    """Call a module's function in a fresh network, in a process of its own; returns what it returns.

    Arguments and result pass as JSON. Whatever it raises fails the test, with its traceback.
    """
    where = f"{function.__module__}:{function.__qualname__}"
    inside = [sys.executable, __file__, "call", where, json.dumps(arguments)]
    result = run(inside, mtu=mtu, timeout=timeout, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    if result.returncode:
        pytest.fail(f"{where} in a namespace, exit status {result.returncode}:\n{result.stderr[-4000:]}", pytrace=False)
    return json.loads(result.stdout.rpartition("\n")[2])


@functools.cache
def obstacle() -> str:
    """Why there are no private networks here, or ""."""
    if sys.platform != "linux":
        return "network namespaces exist on Linux only"
    for program in ("unshare", "ip"):
        if not shutil.which(program):
            return f"{program} is not installed"
    attempt = subprocess.run(["unshare", "-rn", "ip", "link"], capture_output=True, text=True, timeout=10)
    return f"unshare -rn: {attempt.stderr.strip()}" if attempt.returncode else ""


def skip_unless_possible() -> None:
    """Skip the test, with the reason, where there are no private networks."""
    if obstacle():
        pytest.skip(obstacle())


def set_link(device: str, up: bool) -> None:
    """Switch a device on or off. Its neighbour's carrier goes with it."""
    flags = _flags(device) | _IFF_UP if up else _flags(device) & ~_IFF_UP
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", device.encode(), flags))


class Receiver:
    """Collects what arrives at a device from the moment it is made: frames, with the kernel's timestamps.

    They wait in a ring that the kernel writes (packet(7), PACKET_RX_RING), so that the receiver takes no time from a
    sender in the same process; it holds `capacity` frames of at most `size` bytes. A VLAN tag that the kernel took off
    is put back.
    """

    def __init__(self, device: str, *, capacity: int = 8192, size: int = 1984) -> None:
        self._slot = 2048
        while self._slot < size + 64:
            self._slot *= 2
        block = max(self._slot, 1 << 16)
        blocks = -(-capacity * self._slot // block)
        self._slots = blocks * block // self._slot
        self._next = 0
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
        ring = struct.pack("IIII", block, blocks, self._slot, self._slots)  # struct tpacket_req
        self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, ring)
        self._ring = mmap.mmap(self._socket.fileno(), blocks * block)
        self._socket.bind((device, _ETH_P_ALL))

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self._ring.close()
        self._socket.close()

    def frames(self, count: int, timeout: float = 2) -> list[Frame]:
        """The next `count` frames, or fewer when none came for `timeout` seconds. The device may go down and up."""
        frames: list[Frame] = []
        deadline = time.monotonic() + timeout
        while len(frames) < count and time.monotonic() < deadline:
            at = self._next * self._slot
            if not int.from_bytes(self._ring[at : at + 4], sys.byteorder) & _TP_STATUS_USER:
                time.sleep(0.001)
                continue
            frame, outgoing = self._frame(at)
            if not outgoing:
                frames.append(frame)
            self._ring[at : at + 4] = bytes(4)
            self._next = (self._next + 1) % self._slots
            deadline = time.monotonic() + timeout
        return frames

    def _frame(self, at: int) -> tuple[Frame, bool]:
        """The frame at an offset in the ring, and whether it left by this device."""
        # struct tpacket2_hdr, and behind it struct sockaddr_ll, of which byte 10 is the direction
        status, _, length, mac, _, seconds, nanoseconds, tci, tpid = struct.unpack_from("IIIHHIIHH", self._ring, at)
        data = self._ring[at + mac : at + mac + length]
        if status & _TP_STATUS_VLAN:
            data = data[:12] + struct.pack("!HH", tpid or 0x8100, tci) + data[12:]
        return Frame(seconds * 10**9 + nanoseconds, data), self._ring[at + 32 + 10] == _PACKET_OUTGOING


def _set_up(mtu: str) -> None:
    # There is no addrgenmode where there is no IPv6: below an MTU of 1280, or in the whole kernel.
    subprocess.run(
        ["ip", "-force", "-batch", "-"], input=_SETUP.format(mtu=mtu), text=True, timeout=10, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 5
    while not (_running("pt0") and _running("pt1")) and time.monotonic() < deadline:
        time.sleep(0.001)


def _running(device: str) -> bool:
    """Whether the kernel has noticed that there is a carrier."""
    return bool(_flags(device) & _IFF_RUNNING)


def _flags(device: str) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16s24x", device.encode()))
    return int(struct.unpack_from("H", answer, 16)[0])


def _call(where: str, arguments: str) -> None:
    """Call MODULE:FUNCTION of this directory; the result is the last line of the output."""
    module, function = where.split(":")
    try:
        result = getattr(importlib.import_module(module), function)(*json.loads(arguments))
    except Exception as error:
        trace = traceback.TracebackException.from_exception(error, capture_locals=True).format()
        sys.exit("\n".join(line[:400] for line in "".join(trace).splitlines()))
    print("\n" + json.dumps(result), end="")


if __name__ == "__main__":
    if sys.argv[1] == "run":
        _set_up(sys.argv[2])
        os.execvp(sys.argv[3], sys.argv[3:])
    _call(*sys.argv[2:])
