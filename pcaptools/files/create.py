"""Tar archives that depend on nothing but what is in them: sorted, without owners, times and modes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence

from pcaptools.errors import UsageError
from pcaptools.files.output import Output

PIECE = 1 << 20
RECORD = 10240
"""Bytes that the length of an archive is a multiple of (POSIX.1-2001, pax)."""


class Tar:
    """Writes an archive to an output: pax format, mode 0644, owner 0, time 0. Raises OutputError."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._written = 0
        self.members = 0

    def add(self, name: str, size: int, pieces: Iterator[bytes | bytearray]) -> None:
        """A file of `size` bytes, of which the pieces are that many at most; what they lack is zero."""
        import tarfile

        info = tarfile.TarInfo(name)
        info.size = size
        self._write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        for piece in pieces:
            self._write(piece)
            size -= len(piece)
        while size > 0:
            self._write(bytes(min(size, PIECE)))
            size -= PIECE
        self._write(bytes(-self._written % 512))
        self.members += 1

    def finish(self) -> None:
        """Write the end of the archive."""
        self._write(bytes(1024))
        self._write(bytes(-self._written % RECORD))

    def _write(self, data: bytes | bytearray) -> None:
        self._output.write(data)
        self._written += len(data)


def add_files(tar: Tar, paths: Sequence[str], problem: Callable[[str], None]) -> None:
    """Add files, and those in directories, sorted by name. What cannot be read is a problem; so is what shrinks."""
    found: dict[str, str] = {}
    for path in paths:
        for file in _files(path, problem):
            name = _name(file)
            if name in found and not os.path.samefile(file, found[name]):
                raise UsageError(f"{found[name]} and {file} would both be called {name}")
            found[name] = file
    for name, file in sorted(found.items()):
        _add(tar, name, file, problem)


def _files(path: str, problem: Callable[[str], None]) -> Iterator[str]:
    """The regular files that a path stands for."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        problem(f"{path}: {error.strerror or error}")
        return
    if stat.S_ISREG(mode):
        yield path
    elif stat.S_ISDIR(mode):
        for directory, _, names in os.walk(path, onerror=lambda error: problem(f"{error.filename}: {error.strerror}")):
            yield from (file for name in names if os.path.isfile(file := os.path.join(directory, name)))
    else:
        problem(f"{path}: neither a file nor a directory")


def _name(path: str) -> str:
    """What a file is called in the archive: relative, and never above where one unpacks."""
    parts = os.path.normpath(path).split("/")
    return "/".join(part for part in parts if part not in ("", ".."))


def _add(tar: Tar, name: str, path: str, problem: Callable[[str], None]) -> None:
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed below; only opening it may fail here)
    except OSError as error:
        problem(f"{path}: {error.strerror or error}")
        return
    with file:
        size = left = os.fstat(file.fileno()).st_size

        def pieces() -> Iterator[bytes]:
            nonlocal left
            while left and (piece := file.read(min(left, PIECE))):
                left -= len(piece)
                yield piece

        tar.add(name, size, pieces())
        if left:
            problem(f"{path}: shrank by {left} bytes while it was read: zeros stand for them")
