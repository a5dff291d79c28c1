"""Which captures a replay plays: those that are named, found in directories, or listed by a map."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pcaptools.errors import UsageError
from pcaptools.files.sources import Input, from_dataset, named


class Wanted(NamedTuple):
    """paths: files, `-`, or with recursive directories. dataset: a map of captures. suffix: of file names; regexp: in
    paths. period: from and to, ns since the epoch, None when open."""

    paths: Sequence[str]
    dataset: str | None = None
    recursive: bool = False
    suffix: str | None = None
    regexp: str | None = None
    period: tuple[int | None, int | None] = (None, None)


def find(wanted: Wanted, problem: Callable[[str], None]) -> list[Input]:
    """The captures, in the order in which they are named. Raises UsageError when there are none, InputError."""
    inputs: list[Input] = []
    if wanted.dataset is not None:
        inputs = [one for one in from_dataset(wanted.dataset) if _fits(one.path or "", wanted)]
    if wanted.paths or wanted.dataset is None:
        inputs += named(_walked(wanted, problem))
    inputs = [one for one in inputs if _overlaps(one, *wanted.period)]
    if not inputs:
        raise UsageError("there is no capture to play")
    return inputs


def _walked(wanted: Wanted, problem: Callable[[str], None]) -> Sequence[str]:
    if not wanted.recursive and wanted.suffix is None and wanted.regexp is None:
        return wanted.paths
    from pcaptools.files.dataset import walk

    found = walk(list(wanted.paths), wanted.recursive, wanted.suffix, wanted.regexp, problem)
    if not found:
        raise UsageError("no file matches")
    return found


def _fits(path: str, wanted: Wanted) -> bool:
    try:
        return path.endswith(wanted.suffix or "") and bool(re.search(wanted.regexp or "", path))
    except re.error as error:
        raise UsageError(f"--file-regexp: {error}") from None


def _overlaps(one: Input, begin: int | None, end: int | None) -> bool:
    """Whether packets of it may be in the period, as far as a map tells."""
    if one.first is None or one.last is None:
        return True
    return (end is None or one.first < end) and (begin is None or one.last >= begin)
