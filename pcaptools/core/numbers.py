"""Numbers as people write them, taken exactly."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fractions import Fraction

_NUMBER = re.compile(r"[+-]?(\d{1,40}/\d{1,40}|(\d{1,40}(\.\d{0,40})?|\.\d{1,40})([eE][+-]?\d{1,2})?)", re.ASCII)


def parse_number(text: str) -> Fraction:
    """`2`, `-0.25`, `1e6` or `3/4`; of what is longer the digits alone would take for ever. Raises ValueError."""
    from fractions import Fraction

    try:
        if _NUMBER.fullmatch(text):
            return Fraction(text)
    except ZeroDivisionError:
        pass
    raise ValueError(f"'{text}' is not a number")
