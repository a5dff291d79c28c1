"""The words in which a user says a time or a time span."""

from __future__ import annotations

import re

SECOND = 1_000_000_000
"""ns."""

_DATE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)? ?(Z|[+-]\d\d:?\d\d)?", re.ASCII
)
_SECONDS = re.compile(r"(\d+)(?:\.(\d{1,9}))?", re.ASCII)


def parse_time(text: str) -> int:
    """A date such as `2026-11-21`, `2026-11-21T08:00:00.25Z` or `2026-11-21 08:00+01:00` (UTC without a zone), or
    seconds since the epoch, as ns since the epoch, exactly. Raises ValueError."""
    import datetime

    seconds = _SECONDS.fullmatch(text)
    if seconds:
        return _ns(seconds)
    found = _DATE.fullmatch(text)
    if not found:
        raise ValueError(f"'{text}' is neither a date such as 2026-11-21T08:00:00 nor seconds since the epoch")
    zone = found[8]
    try:
        year, month, day, hour, minute, second = (int(field or 0) for field in found.groups()[:6])
        date = datetime.datetime(year, month, day, hour, minute, second)
    except ValueError as error:
        raise ValueError(f"'{text}': {error}") from None
    if zone and zone != "Z":
        hours, minutes = int(zone[1:3]), int(zone[-2:])
        date -= (-1 if zone[0] == "-" else 1) * datetime.timedelta(hours=hours, minutes=minutes)
    since = date - datetime.datetime(1970, 1, 1)
    return (since.days * 86400 + since.seconds) * SECOND + _fraction(found[7])


def _ns(seconds: re.Match[str]) -> int:
    return int(seconds[1]) * SECOND + _fraction(seconds[2])


def _fraction(digits: str | None) -> int:
    return int((digits or "").ljust(9, "0"))


def parse_span(text: str) -> int:
    """A time span in seconds, as ns. Raises ValueError."""
    found = _SECONDS.fullmatch(text)
    if not found:
        raise ValueError(f"'{text}' is not a number of seconds")
    return _ns(found)
