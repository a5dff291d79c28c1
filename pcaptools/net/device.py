"""What a network device is, and whether packets can be sent out of it as they are.

Linux tells by ioctl (netdevice(7)). Elsewhere only the name is checked here; libpcap finds out the rest.
"""

from __future__ import annotations

import socket
import struct
import sys

from pcaptools.errors import DeviceError

ETHERNET = (1,)
RAW_IP = (101, 12, 14, 228, 229)
"""Link types of packets that begin with the IP header."""

ETHERNET_HEADER = 14

# ARPHRD_* of <linux/if_arp.h>: (link types that fit, bytes of link header, bytes that an 802.1Q tag may add).
_KINDS = {
    1: (ETHERNET, ETHERNET_HEADER, 4),  # ETHER
    772: (ETHERNET, ETHERNET_HEADER, 0),  # LOOPBACK
    512: (RAW_IP, 0, 0),  # PPP
    519: (RAW_IP, 0, 0),  # RAWIP
    768: (RAW_IP, 0, 0),  # TUNNEL
    769: (RAW_IP, 0, 0),  # TUNNEL6
    776: (RAW_IP, 0, 0),  # SIT
    65534: (RAW_IP, 0, 0),  # NONE: TUN, WireGuard
}

_SIOCGIFFLAGS, _SIOCGIFMTU, _SIOCGIFHWADDR = 0x8913, 0x8921, 0x8927
_IFF_UP, _IFF_RUNNING = 0x1, 0x40


class Device:
    """A device that is there and up.

    mtu: bytes without the link header, 0 when unknown. linktypes: pcap link types that it carries, none when unknown.
    header: bytes of its link header. tag: bytes that a VLAN tag may add. carrier: whether the other side is there.
    """

    def __init__(self, name: str) -> None:
        """Look at the device `name`. Raises DeviceError when it is missing, down, or takes no such packets."""
        self.name = name
        self.index = _index(name)
        self.mtu = self.header = self.tag = 0
        self.linktypes: tuple[int, ...] = ()
        self.carrier = True
        if sys.platform == "linux":
            self._ask()

    def _ask(self) -> None:
        flags = _ioctl(self.name, _SIOCGIFFLAGS, "H")
        kind = _ioctl(self.name, _SIOCGIFHWADDR, "H")
        self.mtu = _ioctl(self.name, _SIOCGIFMTU, "i")
        if kind not in _KINDS:
            raise DeviceError(f"{self.name}: neither an Ethernet nor an IP device (hardware type {kind})")
        _refuse_down(self.name, flags)
        self.linktypes, self.header, self.tag = _KINDS[kind]
        self.carrier = bool(flags & _IFF_RUNNING)


def exists(name: str) -> bool:
    """Whether there is a device of that name now."""
    try:
        return socket.if_nametoindex(name) > 0
    except (OSError, ValueError, OverflowError):
        return False


def hardware(name: str) -> int:
    """The hardware type (ARPHRD_*) of a Linux device of whatever kind. Raises DeviceError: it is missing or down."""
    _index(name)
    _refuse_down(name, _ioctl(name, _SIOCGIFFLAGS, "H"))
    return _ioctl(name, _SIOCGIFHWADDR, "H")


def _refuse_down(name: str, flags: int) -> None:
    if not flags & _IFF_UP:
        raise DeviceError(f"{name}: the device is down: ip link set {name} up")


def _index(name: str) -> int:
    if not exists(name):
        there = ", ".join(device for _, device in socket.if_nameindex()) or "none"
        raise DeviceError(f"{name}: no such device; there are: {there}")
    return socket.if_nametoindex(name)


def _ioctl(name: str, request: int, format: str) -> int:
    """A number out of a struct ifreq of 40 bytes, the name first. Any socket will do, and needs no privilege."""
    import fcntl

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, request, struct.pack("16s24x", name.encode()))
        except OSError as error:
            raise DeviceError(f"{name}: {error.strerror}") from None
    return int(struct.unpack_from(format, answer, 16)[0])
