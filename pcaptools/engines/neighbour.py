"""Who has this address: ARP (RFC 826) and neighbour discovery (RFC 4861), asked and answered. Frames in, frames out."""

from __future__ import annotations

import struct

from pcaptools.core.wire import ARP, ICMP6, IPV6, checksum, ethernet, packet, pseudo_header

BROADCAST = b"\xff" * 6

_REQUEST, _REPLY = 1, 2
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOURCE_OPTION, _TARGET_OPTION = 1, 2
_SOLICITED, _OVERRIDE = 0x40000000, 0x20000000
_GROUP = bytes.fromhex("ff0200000000000000000001ff")  # of solicited nodes; the last three bytes are the address's


def question(wanted: bytes, address: bytes, mac: bytes, vlan: int | None = None) -> bytes:
    """The frame that asks for the MAC address of `wanted`, from `address` at `mac`."""
    if len(wanted) == 4:
        return ethernet(BROADCAST, mac, ARP, vlan) + _arp(_REQUEST, mac, address, bytes(6), wanted)
    group = _GROUP + wanted[-3:]
    body = struct.pack("!I", 0) + wanted + bytes([_SOURCE_OPTION, 1]) + mac
    return ethernet(b"\x33\x33" + group[-4:], mac, IPV6, vlan) + _icmp6(_SOLICITATION, address, group, body)


def answer(frame: bytes, at: int, address: bytes, mac: bytes, vlan: int | None = None) -> bytes | None:
    """The reply to a frame that asks for `address`, None when it does not. at: bytes of its link header."""
    if len(address) == 4:
        asks = _read_arp(frame, at, _REQUEST)
        if not asks or asks[2] != address:
            return None
        return ethernet(asks[0], mac, ARP, vlan) + _arp(_REPLY, mac, address, asks[0], asks[1])
    found = packet(frame, at)
    body = frame[found.transport :] if found and found.protocol == ICMP6 else b""
    if len(body) < 24 or body[0] != _SOLICITATION or body[8:24] != address or not found:
        return None
    reply = struct.pack("!I", _SOLICITED | _OVERRIDE) + address + bytes([_TARGET_OPTION, 1]) + mac
    return ethernet(frame[6:12], mac, IPV6, vlan) + _icmp6(_ADVERTISEMENT, address, found.source, reply)


def answered(frame: bytes, at: int, wanted: bytes) -> bytes | None:
    """The MAC address of `wanted` when the frame tells it, else None."""
    if len(wanted) == 4:
        tells = _read_arp(frame, at, _REPLY)
        return tells[0] if tells and tells[1] == wanted else None
    found = packet(frame, at)
    body = frame[found.transport : found.end] if found and found.protocol == ICMP6 else b""
    if len(body) < 24 or body[0] != _ADVERTISEMENT or body[8:24] != wanted:
        return None
    options = body[24:]
    return options[2:8] if len(options) >= 8 and options[0] == _TARGET_OPTION else frame[6:12]


def _arp(operation: int, mac: bytes, address: bytes, target_mac: bytes, target: bytes) -> bytes:
    return struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + mac + address + target_mac + target + bytes(18)


def _read_arp(frame: bytes, at: int, operation: int) -> tuple[bytes, bytes, bytes] | None:
    """(sender's MAC, sender, target) of an ARP packet for Ethernet and IPv4."""
    body = frame[at : at + 28]
    if frame[at - 2 : at] != b"\x08\x06" or len(body) < 28:
        return None
    if body[:8] != struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation):
        return None
    return body[8:14], body[14:18], body[24:28]


def _icmp6(kind: int, source: bytes, target: bytes, body: bytes) -> bytes:
    """An ICMPv6 packet; hop limit 255, as neighbour discovery demands."""
    plain = bytes([kind, 0, 0, 0]) + body
    total = checksum(pseudo_header(source, target, ICMP6, len(plain)) + plain)
    head = struct.pack("!IHBB", 0x60000000, len(plain), ICMP6, 255)
    return head + source + target + plain[:2] + struct.pack("!H", total) + plain[4:]
