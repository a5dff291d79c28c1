"""The words in which a user says a time or a time span."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datetime

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


PRECISIONS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
"""Digits behind the point."""


def parse_precision(text: str) -> int:
    """`s`, `ms`, `us` or `ns`, as digits behind the point. Raises ValueError."""
    if text not in PRECISIONS:
        raise ValueError(f"'{text}' is not {', '.join(PRECISIONS)}")
    return PRECISIONS[text]


def parse_zone(text: str) -> datetime.tzinfo | None:
    """`local` (None), `UTC`, `+01:00`, or a name such as `Europe/Berlin`. Raises ValueError."""
    import datetime

    if text == "local":
        return None
    if text.upper() in ("UTC", "Z"):
        return datetime.timezone.utc
    found = re.fullmatch(r"([+-])(\d\d):?(\d\d)", text, re.ASCII)
    if found and int(found[2]) < 24 and int(found[3]) < 60:
        span = datetime.timedelta(hours=int(found[2]), minutes=int(found[3]))
        return datetime.timezone(-span if found[1] == "-" else span)
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"'{text}' is neither local, UTC, +01:00 nor a zone such as Europe/Berlin") from None


def seconds(ns: int, digits: int = 3) -> str:
    """A span as seconds, cut to so many digits: `1.369`, `-0.001`."""
    whole, fraction = divmod(abs(ns), SECOND)
    text = f"{whole}.{fraction:09}"[: -(9 - digits) or None] if digits else str(whole)
    return f"-{text}" if ns < 0 and text.strip("0.") else text


class Clock:
    """Writes times, cut to so many digits behind the second, in a zone (None: the local one)."""

    def __init__(self, digits: int = 3, zone: datetime.tzinfo | None = None, date: bool = False) -> None:
        self.digits = digits
        self.width = (20 if date else 9) + digits - (not digits)
        """Characters of what a call returns."""
        self._zone = zone
        self._form = "%Y-%m-%d %H:%M:%S" if date else "%H:%M:%S"
        self._second: int | None = None
        self._text = ""

    def __call__(self, ns: int) -> str:
        """`22:13:25.795`, or `2023-11-14 22:13:25.795`."""
        second, fraction = divmod(ns, SECOND)
        if second != self._second:
            self._second, self._text = second, self._at(second).strftime(self._form)
        return f"{self._text}.{fraction:09}"[: self.width]

    def date(self, ns: int) -> str:
        """`2023-11-14 22:13:25.795+01:00`."""
        second, fraction = divmod(ns, SECOND)
        text = self._at(second).isoformat(" ")
        point = f".{fraction:09}"[: self.digits + 1] if self.digits else ""
        return f"{text[:19]}{point}{text[19:]}"

    def _at(self, second: int) -> datetime.datetime:
        import datetime

        zone = self._zone
        try:
            moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc) + datetime.timedelta(seconds=second)
            return moment.astimezone(zone)
        except OverflowError:
            return datetime.datetime(1, 1, 1, tzinfo=datetime.timezone.utc)
