"""The captures of a replay: which there are, when each begins, and how each is read when its time has come."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from pcaptools.core.batch import DEFAULT_CAPACITY, Batch
from pcaptools.core.pipeline import Account
from pcaptools.core.times import parse_time
from pcaptools.errors import DamagedError, InputError
from pcaptools.files.capture import Capture, open_capture
from pcaptools.files.pool import Pool, PooledFile
from pcaptools.files.streams import name_of, open_raw

MEMORY = 256 << 20
"""Bytes of buffers for all captures together, about."""

LEAST_CAPACITY = 1 << 14
"""Bytes of a capture's buffer, however many captures there are."""


class Input(NamedTuple):
    """A capture: its path (None: standard input), the times of its first and last packet in ns, None when unknown."""

    path: str | None
    first: int | None = None
    last: int | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return name_of(self.path)

    @property
    def regular(self) -> bool:
        """Whether it is a file that can be opened again."""
        return self.path is not None and os.path.isfile(self.path)


def named(paths: Sequence[str]) -> list[Input]:
    """Inputs as they are named; none at all, and `-`, are standard input."""
    return [Input(None if path == "-" else path) for path in paths or ["-"]]


def from_dataset(path: str) -> list[Input]:
    """The inputs that a map lists: pcapinfo's or GopherCap's. Raises InputError.

    A file that changed since is not believed to begin when the map says. Paths that are not found from here are
    looked for beside the map.
    """
    try:
        with open(path, "rb") as file:
            records = json.load(file)["files"]
        beside = os.path.dirname(path)
        return [_mapped(record, beside) for record in records]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: not a map of captures (pcapinfo --dump-json or gopherCap map makes one)") from None


def _mapped(record: dict[str, Any], beside: str) -> Input:
    path = record["path"]
    if not os.path.exists(path) and os.path.exists(os.path.join(beside, path)):
        path = os.path.join(beside, path)
    if record.get("mtime_ns") is not None:
        if not _is_as_mapped(path, record):
            return Input(path)
        return Input(path, record.get("first_ns"), record.get("last_ns"))
    return Input(path, parse_time(record["beginning"]) if record.get("packets") else None)


def _is_as_mapped(path: str, record: dict[str, Any]) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_mtime_ns, status.st_size) == (record["mtime_ns"], record["file_size"])


class Reader:
    """Reads inputs, a few or ten thousand, within the descriptors that a process may have.

    An input that cannot be read is a problem, unless none can: then the last error is raised.
    """

    def __init__(self, inputs: Sequence[Input], account: Account) -> None:
        self.inputs = list(inputs)
        self._account = account
        self._pool = Pool() if len(self.inputs) > 1 else None
        self._capacity = min(max(MEMORY // max(len(self.inputs), 1), LEAST_CAPACITY), DEFAULT_CAPACITY)

    def look(self) -> None:
        """Find when each input begins, where that is not known; leave out what cannot be read. Raises InputError."""
        if len(self.inputs) <= 1:
            return
        found: list[Input] = []
        errors: list[InputError] = []
        small = Batch(4096)
        for one in self.inputs:
            try:
                found.append(one._replace(first=self._first(one, small)) if one.first is None and one.regular else one)
            except InputError as error:
                errors.append(error)
        last = errors.pop() if errors and not found else None
        for unreadable in errors:
            self._account.problem(str(unreadable))
        if last:
            raise last
        self.inputs = found

    def _first(self, one: Input, batch: Batch) -> int | None:
        """When the first packet was captured; 0 when there is none, so that the input is opened and its state told."""
        file = open_raw(one.path)
        try:
            capture = Capture(file, one.name)
            while capture.fill(batch):
                if batch.n:
                    return batch.time(0)
        except DamagedError:
            return 0
        finally:
            file.close()
        return 0

    def batches(self, one: Input, ahead: int = 0) -> Iterator[Batch]:
        """The batches of an input; damage is a problem, not an exception. Raises InputError if it is the only one."""
        try:
            capture = self._open(one)
        except InputError as error:
            if len(self.inputs) == 1:
                raise
            self._account.problem(str(error))
            return
        try:
            if ahead:
                yield from capture.ahead(ahead)
                return
            batch = Batch(self._capacity)
            while capture.fill(batch):
                yield batch
        except DamagedError as damage:
            self._account.problem(str(damage))
        finally:
            capture.close()

    def _open(self, one: Input) -> Capture:
        if self._pool is None or not one.regular:
            return open_capture(one.path)
        assert one.path is not None
        return Capture(PooledFile(one.path, self._pool), one.name)


def ahead(
    source: Iterable[Batch],
    batches: int,
    *,
    ready: Callable[[Batch], object] | None = None,
    done: Callable[[Batch], object] | None = None,
) -> Generator[Batch, None, None]:
    """The batches of a source, which another thread takes up to so many ahead.

    That thread calls `ready` with each when it has been read, and `done` when it is needed no more, or this one does,
    one at a time. What the source raises is raised here. Once this iterator is closed, the thread takes no more.
    """
    import threading
    from contextlib import suppress
    from queue import Empty, SimpleQueue

    free: SimpleQueue[Batch | None] = SimpleQueue()
    filled: SimpleQueue[Batch | BaseException | None] = SimpleQueue()
    counting = threading.Lock()

    def finish(batch: Batch) -> None:
        if done and batch.n:
            with counting:
                done(batch)

    def take() -> None:
        try:
            for batch in source:
                if ready:
                    ready(batch)
                spare = free.get()
                if spare is None:
                    return
                finish(spare)
                spare.swap(batch)
                filled.put(spare)
            filled.put(None)
        except BaseException as error:
            filled.put(error)

    for _ in range(batches + 1):
        free.put(Batch())
    threading.Thread(target=take, daemon=True).start()
    item: Batch | BaseException | None = None
    try:
        while (item := filled.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
            free.put(item)
            item = None
    finally:
        if isinstance(item, Batch):
            finish(item)
        with suppress(Empty):
            while True:
                finish(free.get_nowait() or Batch())
        free.put(None)
