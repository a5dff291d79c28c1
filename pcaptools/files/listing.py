"""What a listing of an archive says of a member."""

from __future__ import annotations

import datetime
from typing import Any

from pcaptools.core import linktype
from pcaptools.core.pipeline import Account
from pcaptools.files.entries import Archives, Entry
from pcaptools.files.inputs import sound


def describe(archives: Archives, entry: Entry, account: Account, *, full: bool) -> dict[str, Any] | None:
    """Name, archive, size and offset in bytes, mtime in s, format; full: also link types, number of packets, earliest
    and latest time, for which it is read to its end. None if it is no capture."""
    capture = archives.open(entry)
    if capture is None:
        return None
    found = {"name": entry.name, "archive": entry.archive, "size": entry.size, "offset": entry.offset}
    found |= {"mtime": entry.mtime, "format": capture.format}
    if full:
        times = [time for batch in sound(capture, account) for time in batch.time_range()]
        links = dict.fromkeys(linktype.name(interface[0]) for interface in capture.interfaces)
        first, last = (rfc3339(min(times)), rfc3339(max(times))) if times else (None, None)
        found |= {"linktypes": list(links), "packets": capture.packets, "first": first, "last": last}
    return found


def rfc3339(ns: int) -> str:
    """A time in UTC, to the ns."""
    seconds, fraction = divmod(ns, 1_000_000_000)
    whole = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    return f"{whole.isoformat()}.{fraction:09}Z"
