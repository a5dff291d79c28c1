"""The Ethernet address to send to so that an IP host gets it: by the kernel's routes and neighbours (Linux)."""

from __future__ import annotations

import errno
import re
import socket
import time
from ipaddress import ip_address

from pcaptools.errors import DeviceError
from pcaptools.net.device import Device
from pcaptools.net.neighbours import link_only, own_addresses

PATIENCE = 3.0
"""s: how long a neighbour is waited for."""

_DISCARD = 9  # the port of RFC 863


def hardware_address(host: str, device: str) -> bytes:
    """The MAC address, 6 bytes, behind which `host` is: an IPv4 or IPv6 address, a name, or a MAC address itself.

    Raises DeviceError.
    """
    if re.fullmatch(r"(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}", host):
        return bytes.fromhex(host.replace(":", "").replace("-", ""))
    address = _resolved(host)
    if address in own_addresses():
        raise DeviceError(f"--to-host: {host} is an address of this machine: --tap sends into it")
    through = Device(device)
    deadline = time.monotonic() + PATIENCE
    while not (way := link_only(through, address)).mac:
        if time.monotonic() > deadline:
            raise DeviceError(f"{device}: {ip_address(way.hop)} does not answer: give its MAC address to --to-host")
        _ask(way.hop, through)
        time.sleep(0.05)
    mac: bytes = way.mac
    return mac


def _resolved(host: str) -> bytes:
    """A packed address."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise DeviceError(f"--to-host: '{host}' is no MAC address, and no host: {error.strerror or error}") from None
    return ip_address(str(found[0][4][0]).partition("%")[0]).packed


def _ask(hop: bytes, device: Device) -> None:
    """Make the kernel look for a neighbour: send an empty datagram to its discard port."""
    family = socket.AF_INET if len(hop) == 4 else socket.AF_INET6
    target = str(ip_address(hop))
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.name.encode())
            probe.sendto(b"", (target, _DISCARD) if family == socket.AF_INET else (target, _DISCARD, 0, device.index))
        except OSError as error:
            if error.errno == errno.EHOSTUNREACH:  # it did not answer so far
                return
            raise DeviceError(f"{device.name}: no way to {target}: {error.strerror}") from None
