"""Captures to be read side by side: files, and the members of archives that can be entered anywhere."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

from pcaptools.core.batch import Batch
from pcaptools.errors import DamagedError, InputError, NotACaptureError, OutputError
from pcaptools.files.archive import BLOCK, is_tar
from pcaptools.files.capture import Capture
from pcaptools.files.entries import PIECE, Archives, Entry, Nothing
from pcaptools.files.index import EARLIEST, Kept, Place, Stored, build, first_time
from pcaptools.files.seekable import Access, unseekable
from pcaptools.files.streams import Prefixed, decompressed, name_of, open_raw, read_head
from pcaptools.files.zip import is_zip, zip_members

MEMORY = 16 << 20
"""Bytes that the buffers of all captures that are read side by side may take, if each has at least LEAST."""

READERS = 2
"""Threads that read ahead."""

LEAST, MOST = 16 << 10, 1 << 20


class Due(NamedTuple):
    """A capture that can be opened when it is due: time of its first packet in ns, name, and `open`, which gives its
    batches."""

    first: int
    name: str
    open: Callable[[], Iterator[Batch]]


class Members:
    """The captures of one run.

    problem: takes what is wrong; wanted: chooses members by name; spool: a directory for what cannot be read side by
    side; kept: indexes on disk. captures: those that were found; skipped: members that are none.
    """

    def __init__(
        self,
        paths: Sequence[str],
        problem: Callable[[str], None],
        wanted: Callable[[str], bool],
        *,
        recursive: bool = False,
        max_ratio: int = 0,
        spool: str | None = None,
        kept: Kept | None = None,
    ) -> None:
        self.captures = 0
        self.skipped = 0
        self._paths = list(paths) or ["-"]
        self._report = problem
        self._told_of: list[str] = []
        self._found: list[str] = []  # by an index: told at the end, unless a capture that it spoils has been
        self._wanted = wanted
        self._recursive = recursive
        self._max_ratio = max_ratio
        self._spool = _Spool(spool) if spool is not None else None
        self._kept = kept
        self._stack = ExitStack()
        self._reading = 0
        self._readers: Executor | None = None

    def __enter__(self) -> Members:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def all(self) -> list[Due]:
        """Everything that can be read side by side. Raises InputError where something cannot."""
        found: list[Due] = []
        for path in self._paths:
            with self._told():
                found += self._of(path)
        if self._kept:
            self._kept.save()
        self.captures += len(found)
        self._readers = ThreadPoolExecutor(READERS)
        self._stack.callback(self._readers.shutdown, wait=False, cancel_futures=True)
        return found

    def _problem(self, message: str) -> None:
        self._told_of.append(message)
        self._report(message)

    def check(self) -> None:
        """Tell what is left to tell. Raises InputError when there was no capture."""
        for message in self._found:
            if not any(message.partition(": ")[2] in told for told in self._told_of):
                self._problem(message)
        if not self.captures:
            raise InputError(f"no capture in {', '.join(map(name_of, self._paths))}")

    def _told(self) -> _Told:
        return _Told(self._problem if len(self._paths) > 1 else None)

    def _of(self, path: str) -> list[Due]:
        name, raw = name_of(path), open_raw(path)
        self._stack.callback(raw.close)
        stream, head = self._begin(raw, name)
        if not is_tar(head) and not is_zip(head):
            return [self._file(path, name, raw, Prefixed(head, stream))]
        if self._spool:
            return self._spooled(raw, name, stream, head)
        if not raw.seekable():
            raise unseekable(name, "a pipe")
        if is_zip(head):
            raw.seek(0)
            return self._zipped(raw, name)
        make = partial(build, raw, name, recursive=self._recursive, max_ratio=self._max_ratio)
        index = self._kept.get(raw, make) if self._kept else make()
        self._found += index.problems
        return self._placed(index.places, Access(raw.fileno(), name, index.kind, index.points), name)

    def _begin(self, raw: io.FileIO, name: str) -> tuple[Any, bytes]:
        """The decompressed stream of an input, and its first bytes."""
        try:
            stream = decompressed(raw, name, self._max_ratio)
            return stream, read_head(stream, BLOCK)
        except DamagedError as error:
            raise InputError(f"{name}: {error}") from None
        except OSError as error:
            raise InputError(f"{name}: {error.strerror or error}") from None

    def _file(self, path: str, name: str, raw: io.FileIO, stream: Any) -> Due:
        """A capture that is a file of its own: opened again when it is due, if that is possible."""
        capture = Capture(stream, name)
        if not raw.seekable() or path == "-":
            return Due(EARLIEST, name, partial(self._batches, partial(_same, capture), live=True))
        first = first_time(capture)
        raw.close()
        return Due(first, name, partial(self._batches, partial(self._reopened, path, name)))

    def _reopened(self, path: str, name: str) -> Capture:
        return self._capture(open_raw(path), name)

    def _capture(self, stream: Any, name: str) -> Capture:
        try:
            return Capture(decompressed(stream, name, self._max_ratio), name)
        except DamagedError as error:
            raise InputError(f"{name}: {error}") from None

    def _placed(self, places: Sequence[Place], access: Access, archive: str) -> list[Due]:
        def opened(place: Place) -> Capture:
            return self._capture(Stored(place, access), f"{archive}: {place.name}")

        chosen = (place for place in places if self._wanted(place.name))
        return [Due(place.first, place.name, partial(self._batches, partial(opened, place))) for place in chosen]

    def _zipped(self, raw: io.FileIO, archive: str) -> list[Due]:
        found = []
        for member in zip_members(raw, archive):
            if member.kind != "file" or not self._wanted(member.name):
                continue
            opened = partial(self._unzipped, member, f"{archive}: {member.name}")
            try:
                first = first_time(opened())
            except NotACaptureError:
                self.skipped += 1
                continue
            except InputError:  # told when it is read
                first = EARLIEST
            found.append(Due(first, member.name, partial(self._batches, opened)))
        return found

    def _unzipped(self, member: Any, name: str) -> Capture:
        return self._capture(member.again(), name)

    def _spooled(self, raw: io.FileIO, name: str, stream: Any, head: bytes) -> list[Due]:
        assert self._spool
        places = [self._spool.add(entry, self._problem) for entry in self._entries(raw, name, stream, head)]
        return self._placed([place for place in places if place], self._spool.access, name)

    def _entries(self, raw: io.FileIO, name: str, stream: Any, head: bytes) -> Iterator[Entry]:
        """The files in an archive, read forward."""
        archives = Archives([], self._problem, self._wanted, recursive=self._recursive, max_ratio=self._max_ratio)
        if is_zip(head):
            yield from archives.unzip(raw, name)
            return
        try:
            yield from archives.walk(Prefixed(head, stream), name)
        except DamagedError as damage:
            self._problem(f"{name}: {damage}")
        finally:
            self.skipped += archives.skipped

    def _batches(self, opened: Callable[[], Capture], live: bool = False) -> Iterator[Batch]:
        """The batches of a capture; what is wrong with it is a problem. live: reading may wait for somebody."""
        try:
            capture = opened()
        except InputError as error:
            self._problem(str(error))
            return
        self._reading += 1
        try:
            yield from self._ahead(capture, live)
        except (DamagedError, InputError) as damage:
            self._problem(str(damage))
        finally:
            self._reading -= 1
            capture.close()

    def _ahead(self, capture: Capture, live: bool) -> Iterator[Batch]:
        """The batches of a capture; another thread reads the next one meanwhile, unless it could have to wait."""
        size = min(max(MEMORY // self._reading, LEAST), MOST)
        batch, following = Batch(size), Batch(size)
        if live or self._readers is None:
            yield from iter(lambda: batch if capture.fill(batch) else None, None)
            return
        reading = self._readers.submit(capture.fill, batch)
        while reading.result():
            reading = self._readers.submit(capture.fill, following)
            yield batch
            batch, following = following, batch

    def serial(self) -> Iterator[tuple[str, Iterator[Batch]]]:
        """Everything in turn, read forward once: (name, batches) of each capture."""
        for path in self._paths:
            with self._told():
                yield from self._serial(path)

    def _serial(self, path: str) -> Iterator[tuple[str, Iterator[Batch]]]:
        name, raw = name_of(path), open_raw(path)
        self._stack.callback(raw.close)
        stream, head = self._begin(raw, name)
        if not is_tar(head) and not is_zip(head):
            capture = Capture(Prefixed(head, stream), name)
            self.captures += 1
            yield name, self._batches(partial(_same, capture))
            return
        for entry in self._entries(raw, name, stream, head):
            try:
                capture = self._capture(entry.stream, entry.label)
            except NotACaptureError:
                self.skipped += 1
            except InputError as error:
                self._problem(str(error))
            else:
                self.captures += 1
                yield entry.name, self._batches(partial(_same, capture))


def _same(capture: Capture) -> Capture:
    return capture


class _Told:
    """An input that cannot be read is a problem when there are others, and the end when there are none."""

    def __init__(self, problem: Callable[[str], None] | None) -> None:
        self._problem = problem

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if self._problem and isinstance(error, InputError) and "--window" not in str(error):
            self._problem(str(error))
            return True
        return False


class _Spool:
    """Captures in one file without a name. Raises OutputError."""

    def __init__(self, directory: str) -> None:
        try:
            self._file: Any = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 (it lives as long as the run)
        except OSError as error:
            raise OutputError(f"--spool: {directory}: {error.strerror or error}") from None
        self._directory = directory
        self._end = 0
        self.access = Access(self._file.fileno(), "", None, [])

    def add(self, entry: Entry, problem: Callable[[str], None]) -> Place | None:
        """Store an entry if it is a capture; one that is damaged, as far as it is there."""
        head = entry.head()
        try:
            Capture(Prefixed(head, Nothing()), entry.label)
        except NotACaptureError:
            return None
        except InputError:  # told when it is read
            pass
        start = self._end
        try:
            while piece := read_head(entry.stream, PIECE):
                self._write(piece)
        except DamagedError as damage:
            problem(f"{entry.label}: {damage}")
        size = self._end - start
        place = Place(entry.name, size, EARLIEST, [(0, start, size)])
        try:
            return place._replace(first=first_time(Capture(Stored(place, self.access), entry.label)))
        except InputError:
            return place

    def _write(self, piece: bytes) -> None:
        try:
            self._file.write(piece)
            self._file.flush()
        except OSError as error:
            raise OutputError(f"--spool: {self._directory}: {error.strerror or error}") from None
        self._end += len(piece)
