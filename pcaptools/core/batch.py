"""The unit of work: a batch of whole records exactly as the file stores them.

A `Batch` is one large writable buffer, reused for the whole run, with what is known of each record beside it::

    bytes     | header | record 0 | record 1 | block | record 2 | start of the next ...
                                                              ^ used             ^ filled
    record k    time (ns since the epoch), start, end, data (offsets in bytes), caplen, wirelen, interface, flags
    where k     offsets of the headers in packet k; computed on first use, dropped when lengths or layers change

`view()` is already file format: an untouched batch, or one that was edited in place, is written with one write.
Bytes that belong to no record (a file header, pcapng blocks that are no packets) travel along between the records.
The work on a batch is native, over all its records with the GIL released; `records()` and `packets()`, which make
Python objects, are for people and tests. Views live until the batch is filled again.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator

from pcaptools.core._core import NativeBatch

DEFAULT_CAPACITY = 1 << 20
"""Bytes of a batch's buffer; a larger record makes it grow."""

READ_CAPACITY = 1 << 19
"""Bytes for batches that are read, edited and written in turn: the work finds them in a core's second-level cache."""

Record = namedtuple("Record", "time start end data caplen wirelen interface flags reason")
"""One record of a batch: time in ns since the epoch, offsets and lengths in bytes, interface as the reader counts."""

Layer = namedtuple("Layer", "ip transport end version protocol status flags")
"""One IP layer: offsets from the first byte of the packet, None where there is no such header."""

Where = namedtuple("Where", "ethernet network ethertype status depth outer inner")
"""Where the headers of a packet are; outer and inner are the outermost and innermost `Layer`."""

STATUS = ("ok", "not IP", "later fragment", "truncated", "bad length", "malformed")
"""What `Where.status` and `Layer.status` mean (enum pt_status of csrc/batch.h)."""

SUMS = ("right", "wrong", "none", "fragment", "snapped", "malformed")
"""What the counts of `Batch.sums` mean (enum pt_sum of csrc/checksums.h)."""


class Batch(NativeBatch):
    """n whole records in one buffer. See the module's text; the native part is described in _core.pyi."""

    def records(self) -> Iterator[Record]:
        """Every record, as a tuple with names."""
        for k in range(self.n):
            yield Record._make(self.record(k))

    def packets(self) -> Iterator[memoryview]:
        """The captured bytes of every record, writable and in place."""
        for k in range(self.n):
            yield self.packet(k)

    def headers(self, k: int) -> Where:
        """Where the headers of packet k are. Raises IndexError."""
        *scalars, outer, inner = self.where(k)
        return Where._make([*scalars, Layer._make(outer), Layer._make(inner)])
