"""Replay into this very machine: a TAP or TUN device whose other end we hold, so that packets arrive as from the wire.

The kernel takes what it is given for received (tuntap.rst of its documentation). For a service to see it, the frame
must be addressed to the device's MAC address, the packet to an address of this machine, and the way back to its source
must not lead elsewhere (rp_filter). The first is done here, the second when addresses are named; the rest is said.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

from pcaptools.core._core import NativeBatch
from pcaptools.errors import DeviceError
from pcaptools.net.device import ETHERNET, RAW_IP, Device, exists
from pcaptools.net.inject import PLAIN, Injector, Manner

_TUNSETIFF, _IFF_TUN, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 1, 2, 0x1000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFMTU = 0x8913, 0x8914, 0x8922
_SIOCSIFHWADDR, _SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCGIFINDEX = 0x8924, 0x8916, 0x891C, 0x8933
_IFNAMSIZ = 16
_IFF_UP, _IFF_NOARP, _ARPHRD_ETHER = 0x1, 0x80, 1
_MTU = 65521
"""Bytes: as large as a TAP device may be, so that nothing is beyond it."""

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def parse_addresses(text: str) -> list[Interface]:
    """`192.0.2.1/24,[2001:db8::1]/64`. Raises ValueError."""
    return [ipaddress.ip_interface(part.replace("[", "").replace("]", "").strip()) for part in text.split(",")]


class Tap(Injector):
    """A TAP device (Ethernet) or TUN device (raw IP) of our own; gone when it is closed.

    It takes the destination MAC address of the first IP packet as its own; neighbours need no resolution (NOARP), so
    that answers do not wait for somebody. `warning` tells after the first batch what will keep packets from services.
    """

    def __init__(
        self, name: str, addresses: Sequence[Interface] = (), *, ip: bool = False, manner: Manner = PLAIN
    ) -> None:
        """ip: TUN. Raises DeviceError."""
        from pcaptools.net._net import Sender, calibrate

        if not 0 < len(name.encode()) < _IFNAMSIZ:
            raise DeviceError(f"{name}: a device's name has 1 to {_IFNAMSIZ - 1} letters")
        if exists(name) and not os.path.exists(f"/sys/class/net/{name}/tun_flags"):
            raise DeviceError(f"{name}: there is a device of that name already")
        self._fd = _create(name, ip)
        try:
            _set_up(name, addresses, ip)
            device = Device(name)
        except OSError as error:
            os.close(self._fd)
            raise DeviceError(f"{name}: {error.strerror or error}") from None
        device.linktypes = RAW_IP if ip else ETHERNET
        device.carrier = True
        sender = Sender(
            [self._fd],
            margin_ns=calibrate(),
            way="write",
            spin=manner.spin,
            skip_late=manner.skip_late,
            tolerance_ns=manner.tolerance,
        )
        super().__init__([device], sender, self._close, manner)
        self._ip = ip
        self._addresses = addresses
        self._met = False
        self.warning = _rp_filter(name)
        self.notes: list[str] = []

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def mark_unfit(self, batch: NativeBatch, start: int, stop: int) -> dict[str, int]:
        """As Injector.mark_unfit; the first batch with IP packets tells the device's MAC address."""
        if not self._met:
            self._meet(batch)
        return super().mark_unfit(batch, start, stop)

    def _meet(self, batch: NativeBatch) -> None:
        """Become the one that the first IP packet is for, and look who else is meant."""
        strangers = targets = 0
        mac = b""
        for k in range(min(batch.n, 1000)):
            packet = batch.packet(k)
            ethernet, network, _, _, depth, _, _ = batch.where(k)
            if not depth or (not self._ip and (ethernet != 0 or packet[0] & 1)):
                continue
            if not mac and not self._ip:
                mac = bytes(packet[:6])
                _set_mac(self.name, mac)
            strangers += not self._ip and bytes(packet[:6]) != mac
            targets += not _is_local(bytes(packet[network : network + 40]))
            self._met = True
        if strangers:
            self.notes.append(
                f"{self.name}: {strangers} of the first {batch.n} packets are for other MAC addresses than "
                f"{mac.hex(':')} and will be ignored: pcaprewrite --enet-dmac {mac.hex(':')} in front changes that"
            )
        if targets:
            self.notes.append(
                f"{self.name}: {targets} of the first {batch.n} packets are for IP addresses that this machine does "
                "not have: name one with --tap-address, or rewrite them"
            )


def _is_local(header: bytes) -> bool:
    """Whether a packet is for an address of this machine: one that a socket can be bound to."""
    version = header[0] >> 4 if header else 0
    if version == 4 and len(header) >= 20:
        family, address = socket.AF_INET, socket.inet_ntop(socket.AF_INET, header[16:20])
        if header[16] >= 224 or header[16:20] == b"\xff" * 4:
            return True
    elif version == 6 and len(header) >= 40:
        family, address = socket.AF_INET6, socket.inet_ntop(socket.AF_INET6, header[24:40])
        if header[24] == 255:
            return True
    else:
        return True
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _create(name: str, ip: bool) -> int:
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise DeviceError(f"/dev/net/tun: {error.strerror}: run it with sudo") from None
    flags = (_IFF_TUN if ip else _IFF_TAP) | _IFF_NO_PI
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except OSError as error:
        os.close(fd)
        reason = "needs CAP_NET_ADMIN: run it with sudo" if isinstance(error, PermissionError) else error.strerror
        raise DeviceError(f"{name}: {reason}") from None
    return fd


def _set_up(name: str, addresses: Sequence[Interface], ip: bool) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16s24x", name.encode()))
        flags = struct.unpack_from("H", answer, 16)[0] | _IFF_UP | _IFF_NOARP
        fcntl.ioctl(control, _SIOCSIFMTU, struct.pack("16si20x", name.encode(), _MTU))
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags))
        for address in addresses:
            if isinstance(address, ipaddress.IPv4Interface):
                for request, value in ((_SIOCSIFADDR, address.ip), (_SIOCSIFNETMASK, address.netmask)):
                    request_of = struct.pack("16sHH4s16x", name.encode(), socket.AF_INET, 0, value.packed)
                    fcntl.ioctl(control, request, request_of)
            else:
                _set_ipv6(name, address)


def _set_ipv6(name: str, address: ipaddress.IPv6Interface) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:
        index = socket.if_nametoindex(name)
        request = struct.pack("16sIi", address.ip.packed, address.network.prefixlen, index)  # struct in6_ifreq
        fcntl.ioctl(control, _SIOCSIFADDR, request)


def _set_mac(name: str, mac: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, _SIOCSIFHWADDR, struct.pack("16sH6s16x", name.encode(), _ARPHRD_ETHER, mac))
        except OSError as error:
            raise DeviceError(f"{name}: cannot take the MAC address {mac.hex(':')}: {error.strerror}") from None


def _rp_filter(name: str) -> str:
    """A warning when the kernel drops packets whose source it would not route back through the device."""
    values: list[int] = []
    for which in ("all", name):
        try:
            with open(f"/proc/sys/net/ipv4/conf/{which}/rp_filter") as file:
                values.append(int(file.read()))
        except (OSError, ValueError):
            continue
    if 1 not in values or 2 in values:
        return ""
    return (
        f"{name}: the kernel drops packets whose source it would not route back there: "
        f"sysctl -w net.ipv4.conf.{name}.rp_filter=2 changes that"
    )


def state(tap: Any) -> list[str]:
    """What there is to say of a TAP device after its first packets; once."""
    notes, tap.notes = tap.notes, []
    return notes
