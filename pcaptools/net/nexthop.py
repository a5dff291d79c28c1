"""The Ethernet address to send to so that an IP host gets it: by the routing table and the neighbour table of Linux."""

from __future__ import annotations

import re
import socket
import struct
import time

from pcaptools.errors import DeviceError

PATIENCE = 3.0
"""s: how long a neighbour is waited for."""


def hardware_address(host: str, device: str) -> bytes:
    """The MAC address, 6 bytes, behind which `host` (a MAC address, or an IPv4 address) is. Raises DeviceError."""
    if re.fullmatch(r"(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}", host):
        return bytes.fromhex(host.replace(":", "").replace("-", ""))
    try:
        address = socket.inet_aton(socket.gethostbyname(host))
    except OSError:
        raise DeviceError(f"--to-host: '{host}' is neither a MAC address nor an IPv4 host") from None
    hop = _next_hop(address, device)
    deadline = time.monotonic() + PATIENCE
    while not (found := _neighbour(hop, device)):
        if time.monotonic() > deadline:
            raise DeviceError(f"{device}: {socket.inet_ntoa(hop)} does not answer: give its MAC address to --to-host")
        _ask(hop)
        time.sleep(0.05)
    return found


def _next_hop(address: bytes, device: str) -> bytes:
    """The gateway that the longest matching route of the device names, or the host itself."""
    best: tuple[int, bytes] | None = None
    with open("/proc/net/route") as table:
        for line in list(table)[1:]:
            name, target, gateway, _, _, _, _, mask, *_ = line.split()
            net, via, bits = (struct.pack("=I", int(field, 16)) for field in (target, gateway, mask))
            if name != device or bytes(a & m for a, m in zip(address, bits, strict=True)) != net:
                continue
            length = bin(int(mask, 16)).count("1")
            if best is None or length > best[0]:
                best = length, via
    if best is None:
        raise DeviceError(f"{device}: there is no route to {socket.inet_ntoa(address)} through it")
    return address if best[1] == bytes(4) else best[1]


def _neighbour(hop: bytes, device: str) -> bytes:
    wanted = socket.inet_ntoa(hop)
    with open("/proc/net/arp") as table:
        for line in list(table)[1:]:
            address, _, flags, mac, _, name = line.split()
            if address == wanted and name == device and int(flags, 16) & 2:
                return bytes.fromhex(mac.replace(":", ""))
    return b""


def _ask(hop: bytes) -> None:
    """Make the kernel look for a neighbour: send an empty datagram to its discard port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.sendto(b"", (socket.inet_ntoa(hop), 9))
        except OSError as error:
            raise DeviceError(f"{socket.inet_ntoa(hop)}: {error.strerror}") from None
