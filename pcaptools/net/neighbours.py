"""Which way a host is: our address towards it, the next hop, and the next hop's MAC address as far as the kernel knows.

Linux tells by rtnetlink, through pyroute2.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import namedtuple
from ipaddress import ip_address
from typing import Any

from pcaptools.errors import DeviceError
from pcaptools.net.device import Device
from pcaptools.net.netlink import network, refusal

Way = namedtuple("Way", "source hop mac own_mac")
"""Packed addresses: ours, and the next hop's; MAC addresses as bytes: the next hop's, or None, and the device's."""

_LOCAL = 2  # RTN_LOCAL
_USABLE = 0x02 | 0x04 | 0x08 | 0x10 | 0x80  # NUD_REACHABLE, STALE, DELAY, PROBE, PERMANENT


def towards(device: Device, target: bytes | None, source: bytes | None, version: int) -> Way:
    """The way from a device to a host, or to anyone (None). source: an address to use that is not this machine's, None
    for the device's. version: of IP, where there is no target. Raises DeviceError."""
    if source is not None:
        if source in own_addresses():
            raise DeviceError(f"{ip_address(source)} is an address of this machine: leave --source-ip out")
        found = link_only(device, target)._replace(source=source)
    elif target is None:
        found = of_device(device, version)
    else:
        found = way(device, target)
    if target is not None and found.source == target:
        raise DeviceError(f"{ip_address(target)} is both the host's address and ours")
    return found


def way(device: Device, target: bytes) -> Way:
    """The way from a device to a host. Raises DeviceError: it is this machine, or there is no way or no address."""
    if sys.platform != "linux":
        raise DeviceError(f"{device.name}: routes are read on Linux only: use --source-ip or --socket")
    family = socket.AF_INET if len(target) == 4 else socket.AF_INET6
    shown = str(ip_address(target))
    with network() as netlink:
        addresses = _addresses(netlink, family)
        if target in addresses.values() or _is_local(netlink, shown):
            raise DeviceError(f"{shown} is an address of this machine: use --socket")
        route = _route(netlink, device, shown)
        hop = _packed(route.get_attr("RTA_GATEWAY")) or target
        source = _packed(route.get_attr("RTA_PREFSRC")) or _of_device(netlink, device, family)
        if source is None:
            version = "IPv4" if family == socket.AF_INET else "IPv6"
            raise DeviceError(f"{device.name}: has no {version} address: give it one or use --source-ip")
        return Way(source, hop, neighbour(netlink, device, hop), own_mac(netlink, device))


def own_addresses() -> set[bytes]:
    """All addresses of this machine, packed, where they can be read."""
    if sys.platform != "linux":
        return set()
    with network() as netlink:
        return {a for family in (socket.AF_INET, socket.AF_INET6) for a in _addresses(netlink, family).values()}


def link_only(device: Device, target: bytes | None) -> Way:
    """As `way`, for a source address that is not of this machine: a host that has no route is on the link.

    Where routes cannot be read, every host is, and the MAC address is one of our own making, as the IP address is.
    """
    if sys.platform != "linux":
        return Way(b"", target or b"", None, b"\2" + os.urandom(5))
    with network() as netlink:
        hop = target or b""
        if target:
            try:
                hop = _packed(_route(netlink, device, str(ip_address(target))).get_attr("RTA_GATEWAY")) or target
            except DeviceError:
                hop = target
        known = neighbour(netlink, device, hop) if hop else None
        return Way(b"", hop, known, own_mac(netlink, device))


def of_device(device: Device, version: int) -> Way:
    """Our address on a device, towards nobody in particular. Raises DeviceError."""
    with network() as netlink:
        source = _of_device(netlink, device, socket.AF_INET if version == 4 else socket.AF_INET6)
        if source is None:
            raise DeviceError(f"{device.name}: has no IPv{version} address: give it one or use --source-ip")
        return Way(source, b"", None, own_mac(netlink, device))


def neighbour(netlink: Any, device: Device, hop: bytes) -> bytes | None:
    """The MAC address of a neighbour as the kernel knows it, or None."""
    family = socket.AF_INET if len(hop) == 4 else socket.AF_INET6
    for entry in netlink.get_neighbours(family, ifindex=device.index):
        if _packed(entry.get_attr("NDA_DST")) == hop and entry["state"] & _USABLE and entry.get_attr("NDA_LLADDR"):
            return bytes.fromhex(entry.get_attr("NDA_LLADDR").replace(":", ""))
    return None


def own_mac(netlink: Any, device: Device) -> bytes:
    """The device's MAC address; empty where it has none."""
    link = netlink.get_links(device.index)[0]
    return bytes.fromhex((link.get_attr("IFLA_ADDRESS") or "").replace(":", ""))


def _packed(address: str | None) -> bytes | None:
    return ip_address(address).packed if address else None


def _addresses(netlink: Any, family: int) -> dict[int, bytes]:
    found = {}
    for number, entry in enumerate(netlink.get_addr(family)):
        found[number] = _packed(entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS")) or b""
    return found


def _of_device(netlink: Any, device: Device, family: int) -> bytes | None:
    for entry in netlink.get_addr(family, index=device.index):
        return _packed(entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS"))
    return None


def _is_local(netlink: Any, target: str) -> bool:
    try:
        return bool(netlink.route("get", dst=target)[0]["type"] == _LOCAL)
    except refusal():
        return False


def _route(netlink: Any, device: Device, target: str) -> Any:
    try:
        return netlink.route("get", dst=target, oif=device.index)[0]
    except refusal() as error:
        raise DeviceError(f"{device.name}: no route to {target}: {os.strerror(getattr(error, 'code', 0))}") from None
