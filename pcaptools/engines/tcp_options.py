"""TCP options in words (numbers: IANA's registry of TCP option kinds)."""

from __future__ import annotations

import struct

from pcaptools.core.wire import BAD_OPTION, tcp_options

_NAMES = {19: "md5", 27: "quick-start", 28: "user-timeout", 29: "tcp-ao", 30: "mptcp", 34: "fast-open", 172: "accecn0",
          174: "accecn1", 254: "experiment"}  # fmt: skip


def options_text(options: bytes) -> str:
    """`mss=1460, sackOK, timestamp 258997482 0, wscale=7`; what cannot be read ends it with `bad`."""
    return ", ".join("bad" if kind == BAD_OPTION else _word(kind, value) for kind, value in tcp_options(options))


def _word(kind: int, value: bytes) -> str:
    if kind == 2 and len(value) == 2:
        return f"mss={value[0] << 8 | value[1]}"
    if kind == 3 and len(value) == 1:
        return f"wscale={value[0]}"
    if kind == 4:
        return "sackOK"
    if kind == 5 and value and len(value) % 8 == 0:
        return "sack " + " ".join(f"{left:08X}-{right:08X}" for left, right in struct.iter_unpack("!II", value))
    if kind == 8 and len(value) == 8:
        return "timestamp {} {}".format(*struct.unpack("!II", value))
    return f"{_NAMES.get(kind, f'option-{kind}')}{'=' if value else ''}{value.hex()}"
