"""Zip archives, from files that can seek: their directory is at the end."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pcaptools.errors import DamagedError, InputError

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

UNIX = 3
KIND, REGULAR, LINK = 0o170000, 0o100000, 0o120000


def is_zip(head: bytes) -> bool:
    """Whether a file that begins with `head` is a zip archive."""
    return head[:4] in (b"PK\3\4", b"PK\5\6")


class ZipMember:
    """A member of a zip archive: as archive.Member, but that it may be read at any time, beside others."""

    def __init__(self, archive: ZipFile, info: ZipInfo) -> None:
        mode = info.external_attr >> 16 & KIND if info.create_system == UNIX else 0
        self.name = info.filename
        self.kind = "directory" if info.is_dir() else {0: "file", REGULAR: "file", LINK: "symlink"}.get(mode, "other")
        self.size = info.file_size
        self.offset = info.header_offset
        self.mtime = _mtime(info)
        self._archive = archive
        self._info = info
        self._file: Any = None
        self._read = 0

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`; 0 at the end. Raises DamagedError."""
        try:
            if self._file is None:
                self._file = self._archive.open(self._info)
            got: int = self._file.readinto(buffer)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # of many kinds: BadZipFile, zlib.error, RuntimeError for passwords, EOFError ...
            raise DamagedError(f"zip member damaged at byte {self._read} of its contents: {_reason(error)}") from None
        self._read += got
        return got

    def again(self) -> ZipMember:
        """The same member, to be read from its start."""
        return ZipMember(self._archive, self._info)


def _reason(error: Exception) -> str:
    if isinstance(error, zlib.error):
        return str(error).partition(": ")[2] or str(error)
    return str(error) or type(error).__name__


def _mtime(info: ZipInfo) -> int:
    """Zip times have no zone: read as UTC."""
    import calendar

    try:
        return calendar.timegm(time.struct_time((*info.date_time, 0, 1, 0)))
    except (ValueError, OverflowError):
        return 0


def zip_members(raw: Any, name: str) -> Iterator[ZipMember]:
    """The members of the zip archive `raw`, a file that can seek. Raises InputError."""
    import zipfile

    try:
        archive = zipfile.ZipFile(raw)
    except OSError:
        raise
    except Exception as error:
        raise InputError(f"{name}: not a readable zip archive: {_reason(error)}") from None
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        yield ZipMember(archive, info)
