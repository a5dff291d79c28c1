"""When packets are due: the speeds that a replay can be asked for, as one integer ratio over one measure.

due = measure * up / down, in ns after the start, computed natively for a whole batch (core/csrc/pace.h); every due
time is absolute, so that no error adds up.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from pcaptools.core._replay import Schedule
from pcaptools.core.numbers import parse_number

SECOND = 1_000_000_000
"""ns."""

_BY_TIME, _BY_PACKET, _BY_BYTE = range(3)
_LARGEST = 1 << 60
_UNITS = {"": SECOND, "ns": 1, "us": 1000, "ms": 1_000_000, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND}
_UNITS["d"] = 24 * _UNITS["h"]


def parse_speed(text: str) -> Fraction:
    """A positive number such as `2`, `0.25`, `1e6` or `3/4`. Raises ValueError."""
    speed = parse_number(text)
    if not 0 < speed < _LARGEST or speed.denominator > _LARGEST:
        raise ValueError(f"'{text}' is out of range")
    return speed


def parse_rate(text: str) -> Fraction | None:
    """The same; None for 0, which tcpreplay takes for as fast as possible."""
    return None if re.fullmatch(r"0+(\.0*)?", text) else parse_speed(text)


def parse_duration(text: str) -> int:
    """A duration in ns: seconds (`2`, `0.5`) or with units (`20ms`, `1m30s`, `1h`). Raises ValueError."""
    parts = re.findall(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|ms|s|m|h|d|)", text)
    if not parts or "".join(map("".join, parts)) != text or (len(parts) > 1 and any(not unit for _, unit in parts)):
        raise ValueError(f"'{text}' is not a duration such as 2, 0.5, 20ms or 1m30s")
    duration = int(sum(Fraction(number) * _UNITS[unit] for number, unit in parts))
    if duration >= 1 << 62:
        raise ValueError(f"'{text}' is out of range")
    return duration


def _schedule(measure: int, per_unit: Fraction, **bounds: Any) -> Schedule:
    """per_unit: ns for one unit of the measure. bounds: `group`, `most` and `limit` of a Schedule."""
    while per_unit.numerator > _LARGEST or per_unit.denominator > _LARGEST:
        per_unit = Fraction(per_unit.numerator >> 1 or 1, per_unit.denominator >> 1 or 1)
    return Schedule(measure, per_unit.numerator, per_unit.denominator, **bounds)


def recorded(multiplier: Fraction, **bounds: Any) -> Schedule:
    """The recorded pace, so many times as fast."""
    return _schedule(_BY_TIME, 1 / multiplier, **bounds)


def scaled(span: int, duration: int, **bounds: Any) -> Schedule:
    """The recorded pace, so that `span` ns of the recording take `duration` ns."""
    return _schedule(_BY_TIME, Fraction(duration, span) if span > 0 and duration > 0 else Fraction(1), **bounds)


def packets_per_second(rate: Fraction, **bounds: Any) -> Schedule:
    """One packet each 1/rate seconds, or `group` packets each group/rate seconds."""
    return _schedule(_BY_PACKET, SECOND / rate, **bounds)


def megabits_per_second(rate: Fraction, **bounds: Any) -> Schedule:
    """So many million bits of frames a second, without preamble, checksum and gap."""
    return _schedule(_BY_BYTE, 8000 / rate, **bounds)
