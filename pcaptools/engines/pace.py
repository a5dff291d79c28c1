"""When packets are due: the speeds that a replay can be asked for, as one integer ratio over one measure.

due = measure * up / down, in ns after the start, computed natively for a whole batch (core/csrc/pace.h); every due
time is absolute, so that no error adds up.
"""

from __future__ import annotations

from fractions import Fraction

from pcaptools.core._core import Schedule

_BY_TIME, _BY_PACKET, _BY_BYTE = range(3)
_LARGEST = 1 << 60


def parse_speed(text: str) -> Fraction:
    """A positive number such as `2`, `0.25`, `1e6` or `3/4`. Raises ValueError."""
    try:
        speed = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"'{text}' is not a number") from None
    if not 0 < speed < _LARGEST or speed.denominator > _LARGEST:
        raise ValueError(f"'{text}' is out of range")
    return speed


def _schedule(measure: int, per_unit: Fraction) -> Schedule:
    """per_unit: ns for one unit of the measure."""
    while per_unit.numerator > _LARGEST or per_unit.denominator > _LARGEST:
        per_unit = Fraction(per_unit.numerator >> 1 or 1, per_unit.denominator >> 1 or 1)
    return Schedule(measure, per_unit.numerator, per_unit.denominator)


def recorded(multiplier: Fraction) -> Schedule:
    """The recorded pace, so many times as fast."""
    return _schedule(_BY_TIME, 1 / multiplier)


def packets_per_second(rate: Fraction) -> Schedule:
    """One packet each 1/rate seconds."""
    return _schedule(_BY_PACKET, 1_000_000_000 / rate)


def megabits_per_second(rate: Fraction) -> Schedule:
    """So many million bits of frames a second, without preamble, checksum and gap."""
    return _schedule(_BY_BYTE, 8000 / rate)
