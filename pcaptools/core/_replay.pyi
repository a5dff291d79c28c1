from typing_extensions import Buffer

from pcaptools.core._core import NativeBatch

# When packets are due

class Schedule:
    """When each packet is due, in ns after the start. measure: enum pt_measure; a due time is the measured value times
    up / down. group: packets that are due together, by packet. most: the longest wait, ns (0: any); what is longer is
    taken out of the schedule. limit: no packet is due later, ns. Raises ValueError."""

    def __init__(
        self, measure: int, up: int, down: int, *, group: int = 1, most: int = 0, limit: int | None = None
    ) -> None: ...
    def due(self, batch: NativeBatch, start: int, stop: int, out: Buffer) -> int:
        """Due times of records start to stop, as int64, into out[start:stop]; returns the first record beyond the
        limit, or stop."""
    def rewind(self, delay: int = 0) -> None:
        """The next packet begins the capture anew, `delay` ns after the last one was due."""
    last: int
    packets: int
    widest: int
    """The longest wait that the capture asked for, ns."""

class Jitter:
    """Random delays, ns: "uniform" from a to b, "normal" of mean a and deviation b, "exponential" of mean a."""

    def __init__(self, seed: int, distribution: str, a: float, b: float) -> None: ...
    def apply(self, start: int, stop: int, out: Buffer) -> None:
        """Add a delay to the due times out[start:stop]."""

def set_times(batch: NativeBatch, start: int, stop: int, due: Buffer, base: int, least: int) -> int:
    """Let records start to stop have the times base + due[k], ns, none before `least` and the one in front; returns the
    last one."""

# Several captures on one timeline

class Timetable:
    """Records of several sources, copied in order of time; at equal times those of the smaller source first."""

    def __init__(self, sources: int) -> None: ...
    def feed(self, source: int, batch: NativeBatch) -> None:
        """Give a source that has none left the records of a batch, which must stay as it is until they are taken."""
    def hold(self, until: int | None, source: int = 0) -> None:
        """Nothing goes out that comes behind (time, source): there is one that begins then and is not open yet."""
    def begin(self, out: NativeBatch) -> None:
        """Empty `out`, for records of this timetable."""
    def fill(self, out: NativeBatch, full: int) -> int:
        """Append records to `out`: until a source has none left (its number), there are `full` bytes (-1), the hold is
        reached (-2), or no source has any (-3). Raises MemoryError."""
    def source_of(self, interface: int) -> int:
        """The source that an interface of the copied records belongs to."""

def shift_times(batch: NativeBatch, shift: int) -> None:
    """Add `shift` ns to the time of every record."""

def copy_records(batch: NativeBatch, out: NativeBatch, pad: bool = False) -> None:
    """Let `out` hold copies of the records that are not dropped; pad: with zero bytes up to their wire length."""

# Faults on purpose

class Impairment:
    """loss, dup, swap: chances in 2^-32."""

    def __init__(self, seed: int, *, loss: int, dup: int, swap: int) -> None: ...
    def apply(self, batch: NativeBatch, out: NativeBatch) -> None:
        """Let `out` hold copies of the records, with faults."""
    counts: tuple[int, int, int]
    """Packets lost, sent twice, swapped with the next."""

# Choosing and changing packets. What drops returns how many it dropped.

def drop_range(batch: NativeBatch, start: int, stop: int) -> int: ...
def drop_cut(batch: NativeBatch) -> int:
    """Those of which less was captured than there was."""

def drop_longer(batch: NativeBatch, most: int) -> int:
    """Those of more than so many captured bytes."""

def cut_longer(batch: NativeBatch, start: int, stop: int, lane: int, largest: int, tag: int) -> int:
    """Shorten what is longer than `largest` bytes, or with an 802.1Q tag than `largest` + `tag`; lane -1: of any lane.
    Returns how many. Their bytes in the file format stay."""

def mark_unfit_lane(
    batch: NativeBatch,
    start: int,
    stop: int,
    lane: int,
    linktypes: tuple[int, ...],
    largest: int,
    least: int,
    tag: int,
) -> dict[str, int]:
    """As NativeBatch.mark_unfit, for the records of one lane."""

def shift_addresses(batch: NativeBatch, shift: int) -> int:
    """Move the two addresses of every packet apart by `shift`, keeping all checksums; drops packets without IP."""

def tally(batch: NativeBatch, start: int, stop: int, counts: dict[int, int]) -> None:
    """Add to counts[interface] the records start to stop that are not dropped."""
