"""What the arguments of tcprewrite's options mean: numbers, ports, MAC addresses, link types, direction caches.

Every parser takes text and raises ValueError with a reason that names the offending part.
"""

from __future__ import annotations

import struct
from collections import namedtuple
from typing import Any

from pcaptools.engines.rewrite import Rule, parse_mac, parse_map

PortRule = namedtuple("PortRule", "first last to")
"""Ports first to last become `to`."""

TTL_MODES = {"": 1, "+": 2, "-": 3}
"""enum pt_ttl: set, add, subtract."""

VLAN_MODES = {"add": 1, "del": 2}
VLAN_PROTOCOLS = {"802.1q": 0x8100, "802.1ad": 0x88A8}
FIXLEN_MODES = {"pad": 1, "trunc": 2, "del": 3}

OUTPUT_LINKTYPES = {
    "enet": 1,
    "raw": 101,
    "null": 0,
    "loop": 108,
    "linuxsll": 113,
    "linuxsll2": 276,
    "hdlc": 104,
    "ppp": 9,
    "pppserial": 50,
    "user": -1,
}
"""--dlt: link type numbers; -1: the one that --user-dlt names."""

PRIMARY, SECONDARY, NO_SEND = 1, 2, 3
"""Directions in a cache: client to server, server to client, not to be edited."""


def number(text: str) -> int:
    """A whole number, decimal or 0x.... Raises ValueError."""
    text = text.strip()
    digits = text[2:] if text[:2].lower() == "0x" else text
    try:
        if not digits.isascii() or not digits.isalnum():
            raise ValueError
        return int(digits, 10 if digits == text else 16)
    except ValueError:
        raise ValueError(f"'{text}' is not a whole number") from None


def between(least: int, most: int):
    """A parser of whole numbers from `least` to `most`."""

    def parse(text: str) -> int:
        value = number(text)
        if not least <= value <= most:
            raise ValueError(f"'{text}' is not from {least} to {most}")
        return value

    return parse


def one_of(choices: dict[str, int]):
    """A parser of words; gives their number."""

    def parse(text: str) -> int:
        if text.lower() not in choices:
            raise ValueError(f"'{text}' is none of {', '.join(choices)}")
        return choices[text.lower()]

    return parse


def parse_ttl(text: str) -> tuple[int, int]:
    """`N`, `+N` or `-N` as (mode, number)."""
    sign = text[:1] if text[:1] in ("+", "-") else ""
    return TTL_MODES[sign], between(0, 255)(text[len(sign) :])


def parse_ports(texts: list[str]) -> list[PortRule]:
    """`FROM:TO[,FROM:TO...]`; FROM is a port, `a-b`, or several as `a+b`; also `a,b:TO`. The first one decides."""
    rules: list[PortRule] = []
    for text in texts:
        waiting: list[tuple[int, int]] = []
        for entry in text.split(","):
            sources, colon, target = entry.partition(":")
            waiting += [_port_range(part) for part in sources.split("+")]
            if colon:
                to = between(0, 65535)(target)
                rules += [PortRule(first, last, to) for first, last in waiting]
                waiting = []
        if waiting:
            raise ValueError(f"'{text}' is not FROM:TO[,FROM:TO...]")
    return rules


def _port_range(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    low = between(0, 65535)(first)
    high = between(0, 65535)(last) if dash else low
    if high < low:
        raise ValueError(f"'{text}' is an empty range")
    return low, high


def parse_macs(text: str) -> tuple[bytes | None, bytes | None]:
    """`MAC[,MAC]`: for packets from the client and from the server; one alone may be left out."""
    fields = text.split(",")
    if len(fields) > 2 or not any(fields):
        raise ValueError(f"'{text}' is not MAC or MAC,MAC")
    macs = [parse_mac(field) if field else None for field in fields]
    return macs[0], macs[1] if len(macs) > 1 else None


def parse_swap(text: str) -> bytes:
    """`OLD,NEW` as 12 bytes."""
    fields = text.split(",")
    if len(fields) != 2:
        raise ValueError(f"'{text}' is not OLD,NEW")
    return b"".join(parse_mac(field) for field in fields)


def parse_hex(text: str) -> bytes:
    """`00,50,0x0f...` as bytes, at most 255."""
    try:
        data = bytes(int(field.strip(), 16) for field in text.split(","))
    except ValueError:
        raise ValueError(f"'{text}' is not a list of hexadecimal bytes") from None
    if len(data) > 255:
        raise ValueError(f"{len(data)} bytes of link layer header are too many")
    return data


def parse_links(texts: list[str]) -> list[bytes]:
    """--user-dlink: one for both directions, or a first one and a second one for packets from the client."""
    links = [parse_hex(text) for text in texts]
    if len(links) > 2 or len({len(link) for link in links}) > 1:
        raise ValueError("at most two headers, of one length")
    return links


def parse_cache(data: bytes) -> tuple[bytes, str]:
    """A direction cache of tcpprep as one direction a packet, and its comment. Raises ValueError."""
    if len(data) < 24 or data[:8] != b"tcpprep\0" or data[8:10] != b"04":
        raise ValueError("not a cache file of tcpprep")
    count, per_byte, length = struct.unpack(">QHH", data[12:24])
    bits = data[24 + length :]
    if per_byte != 4 or len(bits) < (count + 3) // 4:
        raise ValueError("a damaged cache file of tcpprep")
    kinds = [NO_SEND, NO_SEND, SECONDARY, PRIMARY]
    table = [bytes(kinds[byte >> shift & 3] for shift in (0, 2, 4, 6)) for byte in range(256)]
    return b"".join(table[byte] for byte in bits)[:count], data[24 : 24 + length].decode(errors="replace")


def parse_presets(text: str, sections: tuple[str, ...] = ("TCPREWRITE", "PCAPREWRITE")) -> list[tuple[str, str | None]]:
    """The `name value` lines of a --load-opts file, of these sections ([TCPREWRITE]) or before any section."""
    found = []
    wanted = True
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            wanted = line.strip("[]").strip().upper() in sections
        elif wanted:
            name, _, value = line.replace("=", " ", 1).partition(" ") if "=" in line.split()[0] else line.partition(" ")
            value = value.strip()
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            found.append((name.lstrip("-"), value or None))
    return found


_NUMBERS = {
    "--seed": (0, 0xFFFFFFFF),
    "--tcp-sequence": (1, 0xFFFFFFFF),
    "--tos": (0, 255),
    "--tclass": (0, 255),
    "--flowlabel": (0, 0xFFFFF),
    "--mtu": (1, 262144),
    "--enet-mac-seed": (0, 0xFFFFFFFF),
    "--enet-mac-seed-keep-bytes": (1, 6),
    "--enet-vlan-tag": (0, 4095),
    "--enet-vlan-cfi": (0, 1),
    "--enet-vlan-pri": (0, 7),
    "--hdlc-control": (0, 255),
    "--hdlc-address": (0, 255),
    "--user-dlt": (0, 65535),
    "--fuzz-seed": (0, 0xFFFFFFFF),
    "--fuzz-factor": (1, 0xFFFFFFFF),
}

_PARSERS: dict[str, Any] = {
    "--srcipmap": parse_map,
    "--dstipmap": parse_map,
    "--pnat": lambda texts: [parse_map(text) for text in texts],
    "--endpoints": lambda text: endpoints(text),
    "--portmap": parse_ports,
    "--ttl": parse_ttl,
    "--fixlen": one_of(FIXLEN_MODES),
    "--dlt": one_of(OUTPUT_LINKTYPES),
    "--enet-dmac": parse_macs,
    "--enet-smac": parse_macs,
    "--enet-subsmac": lambda texts: [parse_swap(text) for text in texts],
    "--enet-vlan": one_of(VLAN_MODES),
    "--enet-vlan-proto": one_of(VLAN_PROTOCOLS),
    "--user-dlink": parse_links,
    **{name: between(*limits) for name, limits in _NUMBERS.items()},
}


def endpoints(text: str) -> list[list[Rule]]:
    """`IP1:IP2` as the two maps that make it of pnat: everything becomes one of two hosts."""
    [rule] = parse_map(text)
    whole = "[::/0]" if rule.source.version == 6 else "0.0.0.0/0"
    form = "{}:[{}]" if rule.source.version == 6 else "{}:{}"
    return [parse_map(form.format(whole, network.network_address)) for network in rule]


def parsed(args: dict[str, Any], more: dict[str, Any] | None = None) -> dict[str, Any]:
    """The values of the options that were given, by their long names; more: parsers beside tcprewrite's. ValueError
    says which option is wrong."""
    found = {}
    for name, parse in {**_PARSERS, **(more or {})}.items():
        text = args.get(name)
        if text is None or text == []:
            continue
        try:
            found[name] = parse(text)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return found


def direction_maps(given: dict[str, Any]) -> list[list[Rule]]:
    """Pseudo-NAT's two maps, of the client's side and of the server's. Raises ValueError."""
    if "--endpoints" in given:
        pair: list[list[Rule]] = given["--endpoints"]
        return pair
    maps = given.get("--pnat", [])
    if len(maps) > 2:
        raise ValueError("--pnat: at most two maps, one a direction")
    return [maps[0], maps[-1]] if maps else [[], []]


def spelled(lines: list[tuple[str, str | None]], usage: str, argv: list[str]) -> list[str]:
    """Preset options as arguments, those left out that the arguments give. ValueError: one is not known."""
    names: dict[str, str] = {}
    for line in usage.splitlines():
        if line.startswith("  -"):
            words = [word.rstrip(",").partition("=")[0] for word in line.strip().split("  ")[0].split()]
            names.update(dict.fromkeys(words, words[-1]))
    present = set()
    for word in argv:
        if word.startswith("--"):
            given = word.partition("=")[0]
            present |= {long for name, long in names.items() if name.startswith(given)}
        elif word.startswith("-"):
            present.add(names.get(word[:2], ""))
    found = []
    for name, value in lines:
        option = names.get(f"--{name}" if len(name) > 1 else f"-{name}")
        if option is None:
            raise ValueError(f"unknown option {name} in the options file")
        if option not in present:
            found.append(option if value is None else f"{option}={value}")
    return found
