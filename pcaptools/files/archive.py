"""Tar archives: read strictly forward, from a pipe too, and unpacked without trusting a member's name.

The headers (POSIX.1-1988 and -2001, GNU) are parsed by the standard library's TarInfo.fromtarfile; the walk from header
to header, the data and the damage are handled here, because TarFile.next ends silently at the first bad header.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from pcaptools.errors import DamagedError, InputError, OutputError

if TYPE_CHECKING:
    from tarfile import TarFile, TarInfo

BLOCK = 512
HEADERS = 4 << 20  # bytes that one member's headers may take: long names, pax records, maps of sparse files
DISCARD = 1 << 18  # bytes read at a time to skip data
LONGEST_NAME = 4095  # bytes: PATH_MAX without its NUL


def is_tar(head: bytes) -> bool:
    """Whether a file that begins with the 512 bytes `head` is a tar archive (one without any member is not seen)."""
    return len(head) >= BLOCK and (head[257:262] == b"ustar" or _checksum_holds(head[:BLOCK]))


def _checksum_holds(block: bytes) -> bool:
    """The only mark of headers before POSIX; some programs summed signed bytes."""
    try:
        stored = int(block[148:156].strip(b" \0"), 8)
    except ValueError:
        return False
    summed = block[:148] + b" " * 8 + block[156:]
    return stored in (sum(summed), sum(summed) - 256 * sum(byte > 127 for byte in summed))


class Member:
    """A member of an archive, whose data can be read until the next member is asked for.

    `size` is in bytes (holes of sparse files included), `offset` is that of its first header in the decompressed
    archive, `kind` is 'file', 'directory', 'symlink', 'hardlink' or 'other', `mtime` is in seconds since the epoch.
    `segments` are the (offset, length) of its stretches of data, which follow each other from `start` on.
    """

    def __init__(self, info: TarInfo, file: _Forward, following: int) -> None:
        self.name = info.name
        self.kind = _kind(info)
        self.size = info.size if self.kind == "file" else 0
        self.offset = info.offset
        self.mtime = int(info.mtime)
        room = following - file.position
        self.start = file.position  # of its data, in the archive
        self.segments = [(0, min(info.size, room))] if info.sparse is None else _sparse(info, room)
        self._segments = list(self.segments)
        self.end = file.position + sum(length for _, length in self._segments)  # of its data, in the archive
        self.short = False  # whether a reader has been told that data is missing
        self.damaged = False  # whether a reader has been told that the archive cannot be read on
        self._at = 0
        self._file: _Forward | None = file

    @property
    def is_whole(self) -> bool:
        """Whether its data lies in one stretch, without holes."""
        return self.segments == [(0, self.size)]

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`; return the bytes read, 0 at the end. Raises DamagedError where the archive ends early."""
        if self._file is None:
            raise ValueError(f"the archive has moved on from member {self.name!r}")
        view = memoryview(buffer).cast("B")[: self.size - self._at]
        if not view:
            return 0
        while self._segments and sum(self._segments[0]) <= self._at:
            del self._segments[0]
        start, length = self._segments[0] if self._segments else (self.size, 0)
        if self._at < start:
            got = min(len(view), start - self._at)
            view[:got] = bytes(got)
        else:
            try:
                got = self._file.readinto(view[: start + length - self._at])
            except DamagedError:
                self.damaged = True
                raise
            if not got:
                self.short = True
                raise DamagedError(f"member ends {self.end - self._file.position} bytes early")
        self._at += got
        return got

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, b'' at the end. Raises as readinto does."""
        data = bytearray(min(size, self.size - self._at))
        return bytes(data[: self.readinto(data)])

    def close(self) -> None:
        """End the time in which the data can be read."""
        self._file = None


def _kind(info: TarInfo) -> str:
    kinds = {"directory": info.isdir, "symlink": info.issym, "hardlink": info.islnk, "file": info.isfile}
    return next((kind for kind, holds in kinds.items() if holds()), "other")


def _sparse(info: TarInfo, room: int) -> list[tuple[int, int]]:
    """The (offset, length) of each stretch of data in a sparse file. Raises ValueError if they make no sense."""
    entries: Any = info.sparse  # typed as bytes by typeshed
    stretches = [(offset, length) for offset, length in entries if length]
    end = stored = 0
    for offset, length in stretches:
        if offset < end or length < 0:
            raise ValueError("stretches of a sparse file overlap")
        end = offset + length
        stored += length
    if end > info.size or stored > room:
        raise ValueError("stretches of a sparse file exceed it")
    return stretches


def members(stream: Any, name: str, problems: Callable[[str], None]) -> Iterator[Member]:
    """The members of the tar archive `stream`, which has readinto and starts here; `name` is for messages.

    If it has seekable, tell and seek too, data that nobody reads is skipped with seek. Each run of damage is told to
    `problems` once, and the walk goes on at the next valid header: "archive damaged at offset O: ...", in bytes of the
    decompressed archive. Raises InputError if this is no tar archive; what `stream` raises passes through, but a
    DamagedError that the reader of a member got ends the walk.
    """
    import tarfile

    class Context(tarfile.TarFile):
        """What TarInfo.fromtarfile needs; reads nothing of its own accord."""

        def next(self) -> None:
            return None

    file = _Forward(stream)
    run = _Run(problems)
    unused: Any = file
    context = Context(fileobj=unused)
    while (member := _next(file, context, run, name)) is not None:
        yield member
        member.close()
        try:
            file.skip(context.offset - file.position)
        except DamagedError:
            if member.damaged:
                return
            raise
        if file.position < member.end and not member.short:
            missing = member.end - file.position
            where = f"archive damaged at offset {file.position}"
            problems(f"{where}: it ends {missing} bytes before the end of {member.name!r}")
    run.end(file.position)
    if file.position == 0:
        raise InputError(f"{name}: not a tar archive: it is empty")


def _next(file: _Forward, context: TarFile, run: _Run, name: str) -> Member | None:
    """The member of the next valid header, None at the end."""
    import tarfile

    while True:
        start = file.position
        file.begin()
        try:
            info = tarfile.TarInfo.fromtarfile(context)
            if info.size < 0 or context.offset < file.position:
                raise ValueError("negative size")
            member = Member(info, file, context.offset)
        except (OSError, DamagedError):
            raise
        except Exception as error:  # of many kinds: tarfile believes the numbers in a header
            if file.position == start:
                return None
            if not file.first.strip(b"\0"):  # the end marker: another archive may follow
                continue
            if start == 0 and not is_tar(file.first):
                raise InputError(f"{name}: not a tar archive") from None
            run.begin(start, error)
        else:
            run.end(start)
            return member


class _Run:
    """A run of blocks that are no headers; it is told once, when it is over."""

    def __init__(self, problems: Callable[[str], None]) -> None:
        self._problems = problems
        self._start = 0
        self._reason = ""

    def begin(self, start: int, error: Exception) -> None:
        if not self._reason:
            self._start = start
            self._reason = str(error) or type(error).__name__

    def end(self, position: int) -> None:
        if self._reason:
            skipped = position - self._start
            self._problems(f"archive damaged at offset {self._start}: {self._reason}; {skipped} bytes skipped")
            self._reason = ""


class _Forward:
    """The archive as a file that is only read forward: `position` bytes of it have been read or skipped."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._seeks = _end(stream) > 0
        self.position = 0
        self.begin()

    def begin(self) -> None:
        """Begin with a member's headers."""
        self._allowance = HEADERS  # bytes that `read` may still read: a header's own word on its length is not trusted
        self.first = b""  # what `read` returned first

    def tell(self) -> int:
        return self.position

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes of headers, fewer at the end."""
        self._allowance -= size
        if size < 0 or self._allowance < 0:
            raise ValueError(f"headers exceed {HEADERS} bytes")
        data = bytearray(size)
        view = memoryview(data)
        while view and (got := self.readinto(view)):
            view = view[got:]
        result = bytes(data[: size - len(view)])
        self.first = self.first or result
        return result

    def readinto(self, view: memoryview) -> int:
        got: int = self._stream.readinto(view)
        self.position += got
        return got

    def skip(self, size: int) -> None:
        """Go forward by `size` bytes, or to the end."""
        if self._seeks:
            size = min(size, _end(self._stream) - self._stream.tell())
            self._stream.seek(size, os.SEEK_CUR)
            self.position += size
            return
        scratch = memoryview(bytearray(min(size, DISCARD)))
        while size and (got := self.readinto(scratch[:size])):
            size -= got


def _end(stream: Any) -> int:
    """Where a stream that can seek ends, 0 for others."""
    try:
        here = stream.tell()
        end: int = stream.seek(0, os.SEEK_END)
        stream.seek(here)
    except (AttributeError, OSError):
        return 0
    return end


class SafeDirectory:
    """A directory below which members are created: never outside of it, never through a link, never over a file.

    Raises OutputError, as its methods do.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror}") from None

    def __enter__(self) -> SafeDirectory:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._fd)

    def create(self, name: str) -> BinaryIO:
        """A new file for the member `name`, open for writing; directories that it needs are made."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        parts = components(name)
        try:
            parent = self._descend(parts[:-1], make=True)
            try:
                return open(os.open(parts[-1], flags, 0o666, dir_fd=parent), "wb")
            finally:
                os.close(parent)
        except FileExistsError:
            raise OutputError(f"{name!r}: exists already") from None
        except OSError as error:
            raise OutputError(f"{name!r}: {_reason(error)}") from None

    def remove(self, name: str) -> None:
        """Remove a file that `create` made; directories stay. A file that is gone already is no error."""
        parts = components(name)
        try:
            parent = self._descend(parts[:-1], make=False)
            try:
                os.unlink(parts[-1], dir_fd=parent)
            finally:
                os.close(parent)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise OutputError(f"{name!r}: {_reason(error)}") from None

    def _descend(self, components: list[str], make: bool) -> int:
        """A descriptor of a directory below; links are not followed."""
        here = os.dup(self._fd)
        for component in components:
            try:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(component, dir_fd=here)
                below = os.open(component, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            finally:
                os.close(here)
            here = below
        return here


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOTDIR, errno.ELOOP):
        return "a file or a symbolic link is where it needs a directory"
    return error.strerror or str(error)


def components(name: str) -> list[str]:
    """The components of a member's name. Raises OutputError for one that leaves the directory or names no file."""
    try:
        length = len(os.fsencode(name))
    except UnicodeError:
        raise OutputError(f"{name!r}: not a name that this system can write") from None
    parts = [component for component in name.split("/") if component not in ("", ".")]
    if name.startswith("/"):
        reason = "an absolute name"
    elif ".." in parts:
        reason = "a name that leaves the directory"
    elif "\0" in name:
        reason = "a name with a NUL byte"
    elif not parts:
        reason = "an empty name"
    elif length > LONGEST_NAME:
        reason = f"a name of more than {LONGEST_NAME} bytes"
    else:
        return parts
    raise OutputError(f"{name[:256]!r}: {reason}")
