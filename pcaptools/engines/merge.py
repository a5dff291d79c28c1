"""Several captures on one timeline."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from pcaptools.core.batch import Batch

Slice = tuple[Batch, int, int]
"""Records start to stop of a batch."""


def merge(sources: Iterable[Iterable[Batch]]) -> Iterator[Slice]:
    """The records of all sources in order of time, as slices of their batches; at equal times the earlier source first.

    A source whose own times go backwards keeps its own order. A slice is valid until the next one is asked for.
    """
    heads = []
    for number, source in enumerate(sources):
        batches = iter(source)
        if (batch := _next(batches)) is not None:
            heads.append((batch.time(0), number, 0, batch, batches))
    heapq.heapify(heads)
    while heads:
        _, number, start, batch, batches = heapq.heappop(heads)
        stop = batch.run(start, heads[0][0], number < heads[0][1]) if heads else batch.n
        yield batch, start, stop
        if stop == batch.n:
            following = _next(batches)
            if following is None:
                continue
            batch, stop = following, 0
        heapq.heappush(heads, (batch.time(stop), number, stop, batch, batches))


def _next(batches: Iterator[Batch]) -> Batch | None:
    """The next batch that holds a record."""
    for batch in batches:
        if batch.n:
            return batch
    return None
