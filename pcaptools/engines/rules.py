"""What is demanded of answers, out of the words of a command line."""

from __future__ import annotations

import re
from collections.abc import Callable

from pcaptools.engines.dialogue import ANY, CONTINUE, EXACT, LENGTH, STOP, WARN

SECOND = 1_000_000_000  # ns


def one_of(*words: str) -> Callable[[str], str]:
    """A parser that takes these words alone."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"'{text}' is not {', '.join(words[:-1])} or {words[-1]}")
        return text

    return parse


parse_expect = one_of(EXACT, LENGTH, ANY)
parse_on_mismatch = one_of(STOP, WARN, CONTINUE)


def parse_regex(text: str) -> tuple[int | None, re.Pattern[bytes]]:
    """`[TURN:]REGEX`. Raises ValueError."""
    turn, colon, rest = text.partition(":")
    numbered = bool(colon) and turn.isascii() and turn.isdigit()
    try:
        pattern = re.compile((rest if numbered else text).encode(errors="surrogateescape"), re.DOTALL)
    except re.error as error:
        raise ValueError(f"'{text}': {error}") from None
    return int(turn) if numbered else None, pattern


def parse_ranges(text: str) -> tuple[tuple[int | None, int, int], ...]:
    """`[TURN:]FROM-TO[,...]`: bytes of answers, from 0, both included. Raises ValueError."""
    ranges = []
    for word in text.split(","):
        match = re.fullmatch(r"(?:(\d+):)?(\d+)(?:-(\d+))?", word, re.ASCII)
        if not match:
            raise ValueError(f"'{word}' is not [TURN:]FROM-TO")
        turn, low, high = match.groups()
        if high is not None and int(high) < int(low):
            raise ValueError(f"'{word}' ends before it begins")
        ranges.append((int(turn) if turn else None, int(low), int(high or low)))
    return tuple(ranges)


def parse_seconds(text: str) -> int:
    """Seconds, as ns. Raises ValueError."""
    if not re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII) or float(text) == 0:
        raise ValueError(f"'{text}' is not a number of seconds")
    whole, _, part = text.partition(".")
    return int(whole) * SECOND + int((part + "0" * 9)[:9])


def parse_count(text: str) -> int:
    """A whole number of 1 or more. Raises ValueError."""
    if not re.fullmatch(r"0*[1-9]\d*", text, re.ASCII):
        raise ValueError(f"'{text}' is not a whole number of 1 or more")
    return int(text)


def parse_whole(text: str) -> int:
    """A whole number of 0 or more. Raises ValueError."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"'{text}' is not a whole number")
    return int(text)


def parse_rate(text: str) -> float:
    """So many a second: `200`, `0.5`, `200/s`. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?:/s)?", text, re.ASCII)
    if not match or float(match[1]) == 0:
        raise ValueError(f"'{text}' is not a number a second")
    return float(match[1])


def parse_port(text: str) -> int:
    """A port. Raises ValueError."""
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ValueError(f"'{text}' is not a port")
    return int(text)


def parse_vlan(text: str) -> int:
    """An 802.1Q tag. Raises ValueError."""
    if not (text.isascii() and text.isdigit() and int(text) < 4095):
        raise ValueError(f"'{text}' is not a VLAN of 0 to 4094")
    return int(text)


def parse_source_port(text: str) -> int | str:
    """`random`, `recorded` or a port. Raises ValueError."""
    return text if text in ("random", "recorded") else parse_port(text)


def parse_mac(text: str) -> bytes | None:
    """A MAC address as bytes; None for `auto`. Raises ValueError."""
    if text == "auto":
        return None
    words = re.split("[:-]", text)
    if len(words) != 6 or not all(re.fullmatch("[0-9A-Fa-f]{1,2}", word) for word in words):
        raise ValueError(f"'{text}' is neither a MAC address nor auto")
    return bytes(int(word, 16) for word in words)


def parse_address(text: str) -> bytes:
    """An IP address, packed. Raises ValueError."""
    from ipaddress import ip_address

    return ip_address(text.strip("[]")).packed
