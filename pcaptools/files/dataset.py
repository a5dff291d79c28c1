"""A map of many captures: found, looked at in parallel, and kept as JSON that GopherCap's replayer reads too.

GopherCap's schema: for the set `beginning`, `end` and `files`; for each file `path`, `snaplen`, `packets`, `size`
(captured bytes), `max_packet_size`, `out_of_order`, `beginning`, `end`, `pps`, `duration` and `delay` in ns, and both
in words. Its readers ignore what is added here: `file_size`, `mtime_ns`, `format`, `link_types`, `bytes` (on the wire),
`truncated`, `error`, `error_offset`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pcaptools.core._info import Figures
from pcaptools.errors import DamagedError, InputError, NotACaptureError, UsageError
from pcaptools.files.inspect import inspect
from pcaptools.files.output import Output

Record = dict[str, Any]

Found = namedtuple("Found", "path size mtime_ns")
"""A file that may be a capture: size in bytes, time of the last change in ns."""

CHUNK_FILES, CHUNK_BYTES = 32, 64 << 20
"""At most so much goes to a worker at a time."""


def walk(
    paths: Iterable[str], recursive: bool, suffix: str | None, regexp: str | None, problem: Callable[[str], None]
) -> list[str]:
    """The files that are named or lie below what is named, in a stable order, each once.

    Suffix and regular expression (searched in the path) choose among them. A directory that cannot be read is a
    problem. Raises UsageError for a wrong expression.
    """
    try:
        wanted = re.compile(regexp or "")
    except re.error as error:
        raise UsageError(f"--file-regexp: {error}") from None
    found: dict[str, None] = {}
    for path in paths:
        if os.path.isdir(path):
            if not recursive:
                problem(f"{path}: Is a directory: --recursive looks into it")
                continue
            found |= dict.fromkeys(_below(path, problem))
        else:
            found[path] = None
    return [path for path in found if path.endswith(suffix or "") and wanted.search(path)]


def _below(top: str, problem: Callable[[str], None]) -> Iterator[str]:
    def unreadable(error: OSError) -> None:
        problem(f"{error.filename}: {error.strerror or error}")

    for directory, directories, names in os.walk(top, onerror=unreadable):
        directories.sort()
        for name in sorted(names):
            path = os.path.join(directory, name)
            if os.path.isfile(path) or os.path.islink(path):
                yield path


def describe(path: str) -> Record:
    """What one capture holds. Never fails: what is wrong stands in `error`. At top level, for any executor to call."""
    record: Record = {"path": path, "snaplen": 0, "format": None, "link_types": [], "error": None, "error_offset": None}
    figures = Figures()
    try:
        status = os.stat(path)
        record |= {"file_size": status.st_size, "mtime_ns": status.st_mtime_ns}
        _read(path, record, figures)
    except DamagedError as error:
        record |= {"error": _without(str(error), path), "error_offset": error.offset}
    except InputError as error:
        record |= {"error": _without(str(error), path), "not_a_capture": isinstance(error, NotACaptureError)}
    except OSError as error:
        record |= {"error": error.strerror or str(error), "file_size": None, "mtime_ns": None}
    except MemoryError as error:
        record |= {"error": str(error) or "not enough memory"}
    return {**record, **_counted(figures)}


def _read(path: str, record: Record, figures: Figures) -> None:
    with inspect(path) as inspected:
        record["format"] = inspected.capture.format
        try:
            for batch in inspected.batches():
                figures.add(batch)
        finally:
            interfaces = inspected.capture.interfaces
            record["link_types"] = sorted({interface[0] for interface in interfaces})
            record["snaplen"] = max((interface[1] for interface in interfaces), default=0)


def _without(message: str, path: str) -> str:
    return message.removeprefix(f"{path}: ")


def _counted(figures: Figures) -> Record:
    timed = figures.timed
    return {
        "packets": figures.packets,
        "size": figures.captured,
        "bytes": figures.bytes,
        "max_packet_size": figures.most_captured,
        "out_of_order": figures.backward,
        "truncated": figures.cut,
        "first_ns": figures.first if timed else None,
        "last_ns": figures.last if timed else None,
    }


def describe_all(paths: list[str]) -> list[Record]:
    """One worker's share."""
    return [describe(path) for path in paths]


def map_captures(
    paths: Iterable[str], known: dict[Found, Record], executor: Any, progress: Callable[[int, int], None]
) -> list[Record]:
    """Records of all captures, in the order of the paths; those that `known` holds are not read again.

    executor: any concurrent.futures.Executor, one machine's or a cluster's; None reads here, one after the other.
    progress: called with (files done, files in all).
    """
    files = [_found(path) for path in paths]
    records: dict[str, Record] = {file.path: known[file] for file in files if file in known}
    missing = [file for file in files if file not in known]
    progress(len(records), len(files))
    for described in _described(_chunks(missing), executor):
        records |= {record["path"]: record for record in described}
        progress(len(records), len(files))
    return [records[file.path] for file in files]


def _described(chunks: list[list[str]], executor: Any) -> Iterator[list[Record]]:
    """Chunks as they are done."""
    if executor is None:
        yield from map(describe_all, chunks)
        return
    from concurrent.futures import as_completed

    futures = [executor.submit(describe_all, chunk) for chunk in chunks]
    for future in as_completed(futures):
        yield future.result()


def _found(path: str) -> Found:
    try:
        status = os.stat(path)
    except OSError:
        return Found(path, None, None)
    return Found(path, status.st_size, status.st_mtime_ns)


def _chunks(files: list[Found]) -> list[list[str]]:
    chunks: list[list[str]] = []
    size = CHUNK_BYTES + 1
    for file in files:
        size += file.size or 0
        if size > CHUNK_BYTES or len(chunks[-1]) == CHUNK_FILES:
            chunks.append([])
            size = file.size or 0
        chunks[-1].append(file.path)
    return chunks


def process_pool(workers: int) -> Any:
    """Processes on this machine, as an executor; None for one worker. They leave signals to their parent."""
    if workers <= 1:
        return None
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    return ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _begin_worker)


def _begin_worker() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end_workers() -> None:
    """End processes that work on, after an interruption."""
    import multiprocessing

    for process in multiprocessing.active_children():
        process.terminate()


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


# ---- the map as a file


def write_map(
    paths: list[str],
    target: str,
    workers: int,
    foreign: bool,
    problem: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> None:
    """Map captures into the file `target` (`-`: standard output), which may hold an older map of them.

    foreign: files that are no captures are in the map, with their error. What is wrong with a file is a problem. Raises
    InputError when nothing can be read, UsageError, OutputError.
    """
    known = {} if target == "-" else load_known(target)
    executor = process_pool(min(workers, len(paths)))
    try:
        records = map_captures(paths, known, executor, progress)
    except BaseException:
        end_workers()
        raise
    if executor:
        executor.shutdown()
    if not foreign:
        records = [record for record in records if not record.get("not_a_capture")]
    for record in records:
        if record["error"]:
            problem(f"{record['path']}: {record['error']}")
    if all(record["error"] and not record["packets"] for record in records):
        raise InputError("no capture found")
    with Output(target) as output:
        output.write(dump(records).encode())


def load_known(path: str) -> dict[Found, Record]:
    """The records of an existing map, by file; none when there is no map yet. Raises UsageError if it is no map."""
    try:
        with open(path, "rb") as file:
            text = file.read()
        if not text:
            return {}
        records = json.loads(text)["files"]
        complete = [record for record in records if record.get("mtime_ns") is not None and _is_read(record)]
        return {Found(record["path"], record["file_size"], record["mtime_ns"]): record for record in complete}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"--dump-json: {path} exists and is not a map of captures: remove it first") from None


def _is_read(record: Record) -> bool:
    """One of ours, and of a capture: what could not be read at all is tried again."""
    return "first_ns" in record and bool(record["packets"] or not record["error"])


def dump(records: list[Record]) -> str:
    """The map as JSON, one line."""
    firsts = [record["first_ns"] for record in records if record["first_ns"] is not None]
    lasts = [record["last_ns"] for record in records if record["last_ns"] is not None]
    first, last = (min(firsts), max(lasts)) if firsts else (None, None)
    files = [_entry(record, first) for record in records]
    found = {"beginning": _time(first), "end": _time(last), "files": files}
    return json.dumps(found, separators=(",", ":")) + "\n"


def _entry(record: Record, first: int | None) -> Record:
    """A file in GopherCap's words and ours. Without a time it begins with the set, so that it delays nothing."""
    begins = first if record["first_ns"] is None else record["first_ns"]
    ends = first if record["last_ns"] is None else record["last_ns"]
    duration = (ends or 0) - (begins or 0)
    delay = (begins or 0) - (first or 0)
    ours = ("bytes", "truncated", "format", "link_types", "file_size", "mtime_ns", "first_ns", "last_ns", "error")
    return {
        "path": record["path"],
        "snaplen": record["snaplen"],
        "packets": record["packets"],
        "size": record["size"],
        "max_packet_size": record["max_packet_size"],
        "out_of_order": record["out_of_order"],
        "beginning": _time(begins),
        "end": _time(ends),
        "pps": record["packets"] * 1e9 / duration if duration else 0.0,
        "duration": duration,
        "duration_human": go_duration(duration),
        "delay": delay,
        "delay_human": go_duration(delay),
        **{name: record[name] for name in ours},
        "error_offset": record["error_offset"],
    }


def _time(ns: int | None) -> str:
    """RFC 3339 in UTC as Go writes it; its zero time when there is none, or none that it can read."""
    import datetime

    seconds, fraction = divmod(ns, 1_000_000_000) if ns is not None else (-62135596800, 0)
    try:
        whole = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    except OverflowError:
        return "0001-01-01T00:00:00Z"
    return whole.isoformat() + (f".{fraction:09}".rstrip("0") if fraction else "") + "Z"


def go_duration(ns: int) -> str:
    """A duration as Go prints it: `3m26.887256s`, `1.5ms`, `0s`."""
    sign, ns = ("-" if ns < 0 else ""), abs(ns)
    for unit, name in ((1, "ns"), (1000, "µs"), (1_000_000, "ms")):
        if 0 < ns < unit * 1000:
            return f"{sign}{_trimmed(ns, unit)}{name}"
    minutes, rest = divmod(ns, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    larger = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{larger}{_trimmed(rest, 1_000_000_000)}s"


def _trimmed(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = len(str(unit)) - 1
    return f"{whole}.{rest:0{digits}}".rstrip("0") if rest else str(whole)
