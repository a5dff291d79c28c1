"""The files in archives, one after the other: tar from anywhere, zip where it can seek, archives in archives."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from pcaptools.errors import DamagedError, InputError, NotACaptureError
from pcaptools.files import compression
from pcaptools.files.archive import BLOCK, Member, is_tar, members
from pcaptools.files.capture import Capture
from pcaptools.files.streams import HEAD, Ahead, Prefixed, decompressed, name_of, open_raw, read_head
from pcaptools.files.zip import ZipMember, is_zip, zip_members

PIECE = 1 << 20
"""Bytes that show what a member holds: as many as bzip2 needs."""


class Nothing:
    """The end of a stream."""

    def readinto(self, buffer: Any) -> int:
        return 0


class Entry:
    """A regular file in an archive.

    name: in the archive; behind that of the archive that holds it, when that is a member itself. label: what messages
    call it. stream: its bytes, until the next entry is asked for. size in bytes, offset in the decompressed archive,
    mtime in s since the epoch. base: where the archive that holds it begins in the outermost one; None: nowhere.
    """

    def __init__(self, archive: str, outer: str, member: Member | ZipMember, base: int | None = 0) -> None:
        self.archive = archive
        self.base = base
        self.name = f"{outer}/{member.name}" if outer else member.name
        self.label = f"{archive}: {self.name}"
        self.member = member
        self.stream: Any = member
        self.size = member.size
        self.offset = member.offset
        self.mtime = member.mtime

    def head(self) -> bytes:
        """The first bytes, left where they are."""
        head = read_head(self.stream, PIECE)
        self.stream = Prefixed(head, self.stream)
        return head


class Archives:
    """The archives of one run.

    problem: takes what is wrong. wanted: chooses by name. recursive: archives in archives are opened, one level deep.
    skipped: members that are no captures, so far; captures: those that were opened.
    """

    def __init__(
        self,
        paths: Sequence[str],
        problem: Callable[[str], None],
        wanted: Callable[[str], bool] = lambda name: True,
        *,
        recursive: bool = False,
        max_ratio: int = 0,
    ) -> None:
        self.paths = paths or ["-"]
        self.problem = problem
        self.skipped = 0
        self.captures = 0
        self.max_ratio = max_ratio
        self._wanted = wanted
        self._recursive = recursive

    def entries(self) -> Iterator[Entry]:
        """The wanted files in all archives. Raises InputError for an archive that is none."""
        for path in self.paths:
            name = name_of(path)
            raw = open_raw(path)
            try:
                yield from self._entries(raw, name)
            except DamagedError as damage:
                self.problem(f"{name}: {damage}")
            except OSError as error:
                raise InputError(f"{name}: {error.strerror or error}") from None
            finally:
                raw.close()

    def _entries(self, raw: io.FileIO, name: str) -> Iterator[Entry]:
        stream = decompressed(raw, name, self.max_ratio)
        ahead = None
        if isinstance(stream, compression.Decompressed):
            stream = ahead = Ahead(stream)
        elif is_zip(stream.head if isinstance(stream, Prefixed) else _peek(raw)):
            yield from self.unzip(raw, name)
            return
        try:
            yield from self.walk(stream, name)
        finally:
            if ahead:
                ahead.close()

    def _problem(self, name: str, message: str) -> None:
        self.problem(f"{name}: {message}")

    def unzip(self, raw: io.FileIO, name: str) -> Iterator[Entry]:
        """The wanted files in one zip archive. Raises InputError."""
        if not raw.seekable():
            raise InputError(f"{name}: a zip archive is read from its end: give it as a file, not through a pipe")
        yield from self._files(zip_members(raw, name), name)

    def walk(self, stream: Any, name: str) -> Iterator[Entry]:
        """The wanted files in one tar archive that is read from `stream`. What `stream` raises passes through."""
        yield from self._files(members(stream, name, partial(self._problem, name)), name)

    def _files(
        self, found: Iterator[Member] | Iterator[ZipMember], archive: str, outer: str = "", base: int | None = 0
    ) -> Iterator[Entry]:
        for member in found:
            entry = Entry(archive, outer, member, base)
            if member.kind != "file":
                self.skipped += member.kind != "directory" and self._wanted(entry.name)
            elif self._recursive and not outer:
                yield from self._inside(entry, archive)
            elif self._wanted(entry.name):
                yield entry

    def _inside(self, entry: Entry, archive: str) -> Iterator[Entry]:
        """What an entry holds, if it is an archive, else itself."""
        try:
            head = entry.head()
            shown = read_head(decompressed(Prefixed(head, Nothing()), entry.label), BLOCK)
        except DamagedError:
            shown = b""
        if not is_tar(shown):
            if self._wanted(entry.name):
                yield entry
            return
        try:
            stream = decompressed(entry.stream, entry.label, self.max_ratio)
            found = members(stream, entry.label, partial(self._problem, entry.label))
            member = entry.member
            seeks = isinstance(stream, Prefixed) and isinstance(member, Member) and member.is_whole
            base = member.start if seeks and isinstance(member, Member) else None
            yield from self._files(found, archive, entry.name, base)
        except DamagedError as damage:
            self._problem(entry.label, str(damage))

    def open(self, entry: Entry) -> Capture | None:
        """The capture in an entry; None, counted or told, when it holds something else or cannot be read."""
        return self.capture(entry.stream, entry.label)

    def capture(self, stream: Any, label: str) -> Capture | None:
        """The capture in a stream, as `open` says."""
        try:
            capture = Capture(decompressed(stream, label, self.max_ratio), label)
        except NotACaptureError:
            self.skipped += 1
            return None
        except DamagedError as error:
            self.problem(f"{label}: {error}")
            return None
        except InputError as error:
            self.problem(str(error))
            return None
        self.captures += 1
        return capture

    def check(self) -> None:
        """Raises InputError when there was no capture."""
        if not self.captures:
            raise InputError(f"no capture in {', '.join(map(name_of, self.paths))}")


def _peek(raw: io.FileIO) -> bytes:
    head = read_head(raw, HEAD)
    raw.seek(-len(head), 1)
    return head
