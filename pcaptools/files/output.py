"""Where a command writes its capture: stdout, a file that appears whole or not at all, a device or a FIFO."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from types import TracebackType
from typing import Any

from pcaptools.errors import OutputError
from pcaptools.files.compression import Compressor, compressor, kind_of_suffix
from pcaptools.files.streams import widen_pipe


class Output:
    """The output of a command. Use it as a context manager: the end commits, an exception aborts.

    `path` None or '-' is stdout. A regular or absent file is written under a hidden name beside it and renamed by
    `commit`, so that it may be the input too; everything else is written straight. The suffix of `path` compresses.
    is_pipe: another process reads what is written.
    Every method raises OutputError, but lets BrokenPipeError through: a closed pipe ends a command silently.
    """

    def __init__(self, path: str | None) -> None:
        self.name = "standard output" if path in (None, "-") else str(path)
        self.is_pipe = False
        self._target = ""
        self._temporary = ""
        self._fd = -1
        self._compressor: Compressor | None = None
        try:
            self._open(None if path == "-" else path)
        except OSError as error:
            self.abort()
            raise self._failure(error) from None

    def __enter__(self) -> Output:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.commit()
        else:
            self.abort()

    def write(self, data: Any) -> None:
        """Write all of `data`, a contiguous buffer."""
        self._write(self._compressor.compress(data) if self._compressor else data)

    def commit(self) -> None:
        """Finish: end the compressed stream, close, and give the file its name. Nothing happens a second time."""
        if self._fd < 0:
            return
        try:
            if self._compressor:
                self._write(self._compressor.flush())
            fd, self._fd = self._fd, -1
            os.close(fd)
            if self._temporary:
                os.replace(self._temporary, self._target)
                self._temporary = ""
        except OSError as error:
            raise self._failure(error) from None
        finally:
            self.abort()

    def abort(self) -> None:
        """Close and remove what was not committed."""
        fd, self._fd = self._fd, -1
        temporary, self._temporary = self._temporary, ""
        with suppress(OSError):
            if fd >= 0:
                os.close(fd)
        with suppress(OSError):
            if temporary:
                os.unlink(temporary)

    def _open(self, path: str | None) -> None:
        inherited = 1 if path is None else _inherited(path)
        if inherited is not None:
            self._fd = os.dup(inherited)
        else:
            assert path is not None
            self._open_path(path)
        if not self._temporary:
            self._prepare_straight()
        kind = kind_of_suffix(path or "")
        if kind:
            self._compressor = compressor(kind)

    def _open_path(self, path: str) -> None:
        if not path or path.endswith("/"):
            raise OutputError(f"'{path}' is not the name of a file")
        self._target = os.path.realpath(path)
        try:
            existing = os.stat(path)
        except FileNotFoundError:
            existing = None
        if existing and not stat.S_ISREG(existing.st_mode):
            self._fd = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
        else:
            self._open_temporary(existing)

    def _open_temporary(self, existing: os.stat_result | None) -> None:
        """Create the hidden file: a new one's mode obeys the umask, a replaced one's owner and mode remain."""
        if existing and not os.access(self._target, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        temporary = os.path.join(os.path.dirname(self._target), f".pcaptools-{os.urandom(8).hex()}")
        self._fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._temporary = temporary
        if existing:
            with suppress(OSError):  # only root may give files away
                os.fchown(self._fd, existing.st_uid, existing.st_gid)
            os.fchmod(self._fd, existing.st_mode & 0o777)

    def _prepare_straight(self) -> None:
        if os.isatty(self._fd):
            self.abort()
            raise OutputError("refusing to write binary data to a terminal: redirect it or use -w FILE")
        mode = os.fstat(self._fd).st_mode
        self.is_pipe = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        widen_pipe(self._fd)

    def _write(self, data: Any) -> None:
        view = memoryview(data).cast("B")
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> OSError | OutputError:
        if isinstance(error, BrokenPipeError):
            return error
        return OutputError(f"{self.name}: {error.strerror or error}")


def _inherited(path: str) -> int | None:
    """The descriptor that a name stands for: opened by its name, a file that stdout appends to would be truncated."""
    if path == "/dev/stdout":
        return 1
    directory, _, number = path.rpartition("/")
    return int(number) if directory in ("/dev/fd", "/proc/self/fd") and number.isdecimal() else None
