"""Where the captures in an archive are, when each begins, where it can be entered: found in one pass, and kept.

The file of an index is a line that names the format, a checksum, a JSON document, and behind it what gzip decoders must
know at each point (files/seekable.py). An archive is recognised by name, size and time of change.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from pcaptools.core.batch import Batch
from pcaptools.errors import DamagedError, InputError, NotACaptureError, OutputError, UsageError
from pcaptools.files.archive import Member
from pcaptools.files.capture import Capture
from pcaptools.files.entries import Archives, Entry
from pcaptools.files.output import Output
from pcaptools.files.seekable import Access, Point, indexing, unseekable
from pcaptools.files.streams import decompressed

EARLIEST = -(1 << 63)
"""When a capture is due of which no packet could be read: at once. ns."""

SMALL = 1 << 14
"""Bytes of the buffer that looks for a first packet."""

FORMAT = b"pcaptools index 1\n"


class Place(NamedTuple):
    """A capture in an archive: its name, size in bytes, the time of its first packet in ns, and its stretches of data
    as (offset in it, offset in the decompressed archive, length)."""

    name: str
    size: int
    first: int
    stretches: list[tuple[int, int, int]]


class Index(NamedTuple):
    """What one pass found. kind: compression of the archive; problems: what is wrong with it."""

    kind: str | None
    points: list[Point]
    places: list[Place]
    problems: list[str]


class Stored:
    """The bytes of a place, read through an `Access`."""

    def __init__(self, place: Place, access: Access) -> None:
        self._access = access
        self._stretches = [stretch for stretch in place.stretches if stretch[2]]
        self._size = place.size
        self._at = 0
        self._stream: Any = None
        self._from = -1

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`; 0 at the end. Raises DamagedError where the archive ends early."""
        view = memoryview(buffer).cast("B")[: self._size - self._at]
        if not view:
            return 0
        while self._stretches and sum(self._stretches[0][::2]) <= self._at:
            del self._stretches[0]
        start, offset, length = self._stretches[0] if self._stretches else (self._size, 0, 0)
        if self._at < start:
            got = min(len(view), start - self._at)
            view[:got] = bytes(got)
        else:
            offset += self._at - start
            if self._from != offset:
                self.close()
                self._stream = self._access.open(offset)
            got = self._stream.readinto(view[: start + length - self._at])
            if not got:
                raise DamagedError(f"member ends {start + length - self._at} bytes early")
            self._from = offset + got
        self._at += got
        return got

    def close(self) -> None:
        """Give the decoder up."""
        close = getattr(self._stream, "close", None)
        if close:
            close()
        self._stream = None


def first_time(capture: Capture) -> int:
    """The time of the first packet, ns; EARLIEST where there is none, or none that is sound."""
    batch = Batch(SMALL)
    try:
        while capture.fill(batch):
            if batch.n:
                return batch.time(0)
    except (DamagedError, InputError):
        pass
    return EARLIEST


def build(raw: io.FileIO, name: str, *, recursive: bool, max_ratio: int) -> Index:
    """Read an archive once. Raises InputError for one that is none, or that cannot be read side by side."""
    problems: list[str] = []
    archives = Archives([name], problems.append, recursive=recursive, max_ratio=max_ratio)
    raw.seek(0)
    stream = decompressed(raw, name)
    kind = None if stream is raw else stream.kind
    if kind is not None:
        stream = indexing(raw, name, kind, max_ratio)
    places: list[Place] = []
    try:
        for entry in archives.walk(stream, name):
            place = _place(entry)
            if place:
                places.append(place)
    except DamagedError as damage:
        problems.append(f"{name}: {damage}")
    finally:
        if kind is not None:
            stream.close()
    if kind is None:
        return Index(None, [], places, problems)
    points = stream.points()
    if len(points) < 2 and len(places) > 1 and kind != "gzip":
        raise unseekable(name, f"one {kind} stream")
    return Index(kind, points, places, problems)


def _place(entry: Entry) -> Place | None:
    """Where the capture of an entry is; None if it holds something else. InputError: it can be read but once."""
    first = EARLIEST
    try:
        first = first_time(Capture(entry.stream, entry.label))
    except NotACaptureError:
        return None
    except InputError:  # told when it is read
        pass
    if entry.base is None:
        raise unseekable(entry.label, "in a compressed archive in an archive")
    assert isinstance(entry.member, Member)
    entry.member.short = True  # what it lacks is told when it is read
    stretches, offset = [], entry.base + entry.member.start
    for start, length in entry.member.segments:
        stretches.append((start, offset, length))
        offset += length
    return Place(entry.name, entry.size, first, stretches)


class Kept:
    """The indexes of several archives in a file. Raises UsageError for a file that is something else."""

    def __init__(self, path: str, recursive: bool) -> None:
        self._path = path
        self._recursive = recursive
        self._known: dict[str, Index] = {}
        self._changed = False
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from None
        if data and not data.startswith(FORMAT):
            raise UsageError(f"--index: {path} exists and is no index: it stays as it is")
        self._known = _parse(data)

    def get(self, raw: io.FileIO, make: Callable[[], Index]) -> Index:
        """The index of an archive: the kept one, or a new one."""
        status = os.fstat(raw.fileno())
        name = os.path.basename(str(raw.name))
        key = json.dumps([name, status.st_size, status.st_mtime_ns, self._recursive])
        if key not in self._known:
            self._known = {known: index for known, index in self._known.items() if json.loads(known)[0] != name}
            self._known[key] = make()
            self._changed = True
        return self._known[key]

    def save(self) -> None:
        """Write what is new. Raises OutputError."""
        if not self._changed:
            return
        documents, contexts = {}, []
        for key, index in self._known.items():
            points = [(*point[:3], len(point.context)) for point in index.points]
            documents[key] = [index.kind, points, index.places, index.problems]
            contexts += [point.context for point in index.points]
        text = json.dumps(documents, separators=(",", ":")).encode()
        body = len(text).to_bytes(8, "big") + text + b"".join(contexts)
        try:
            with Output(self._path) as output:
                output.write(FORMAT + zlib.crc32(body).to_bytes(4, "big") + body)
        except OutputError as error:
            raise OutputError(f"--index: {error}") from None


def _parse(data: bytes) -> dict[str, Index]:
    """The indexes in a file; none if it is damaged."""
    body = memoryview(data)[len(FORMAT) + 4 :]
    if int.from_bytes(data[len(FORMAT) : len(FORMAT) + 4], "big") != zlib.crc32(body) or len(body) < 8:
        return {}
    size = int.from_bytes(body[:8], "big")
    try:
        documents = json.loads(bytes(body[8 : 8 + size]))
        contexts = io.BytesIO(body[8 + size :])
        return {
            key: Index(
                kind,
                [Point(output, start, bit, contexts.read(length)) for output, start, bit, length in points],
                [Place(name, size, first, [(a, b, c) for a, b, c in found]) for name, size, first, found in places],
                problems,
            )
            for key, (kind, points, places, problems) in documents.items()
        }
    except (ValueError, TypeError, AttributeError):
        return {}
