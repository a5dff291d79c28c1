"""One row per link type that the commands know by name. Numbers: https://www.tcpdump.org/linktypes.html

`csrc/headers.h` (pt_link_layer) locates the headers behind those marked so; all others pass as payload.
"""

from __future__ import annotations

from collections import namedtuple

LinkType = namedtuple("LinkType", "number name located")

ETHERNET = 1

TABLE = (
    LinkType(0, "NULL", True),
    LinkType(1, "EN10MB", True),
    LinkType(6, "IEEE802", False),
    LinkType(7, "ARCNET", True),
    LinkType(9, "PPP", True),
    LinkType(10, "FDDI", True),
    LinkType(12, "RAW", True),
    LinkType(14, "RAW", True),
    LinkType(50, "PPP_SERIAL", True),
    LinkType(51, "PPP_ETHER", True),
    LinkType(100, "ATM_RFC1483", True),
    LinkType(101, "RAW", True),
    LinkType(104, "C_HDLC", True),
    LinkType(105, "IEEE802_11", True),
    LinkType(107, "FRELAY", True),
    LinkType(108, "LOOP", True),
    LinkType(109, "ENC", True),
    LinkType(113, "LINUX_SLL", True),
    LinkType(119, "PRISM_HEADER", True),
    LinkType(127, "IEEE802_11_RADIO", True),
    LinkType(129, "ARCNET_LINUX", True),
    LinkType(163, "IEEE802_11_RADIO_AVS", True),
    LinkType(189, "USB_LINUX", False),
    LinkType(192, "PPI", True),
    LinkType(195, "IEEE802_15_4_WITHFCS", False),
    LinkType(204, "PPP_WITH_DIR", True),
    LinkType(219, "MPLS", True),
    LinkType(220, "USB_LINUX_MMAPPED", False),
    LinkType(228, "IPV4", True),
    LinkType(229, "IPV6", True),
    LinkType(231, "DBUS", False),
    LinkType(239, "NFLOG", True),
    LinkType(242, "IPOIB", True),
    LinkType(249, "USBPCAP", False),
    LinkType(253, "NETLINK", False),
    LinkType(271, "VSOCK", False),
    LinkType(276, "LINUX_SLL2", True),
)

_NAMES = {row.number: row.name for row in TABLE}


def name(number: int) -> str:
    """`EN10MB (1)`, or `link type 1240` for a number without a row."""
    return f"{_NAMES[number]} ({number})" if number in _NAMES else f"link type {number}"
