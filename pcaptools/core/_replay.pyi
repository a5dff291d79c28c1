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

def sort_window(held: NativeBatch, batch: NativeBatch | None, rest: NativeBatch, out: NativeBatch, window: int) -> None:
    """Records of `held` and `batch`, by time and stably: to `out` what is `window` ns older than the newest, to `rest`
    the others. Without a batch all go to `out`."""

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
def drop_outside(batch: NativeBatch, begin: int, end: int) -> int:
    """Those whose time is not in [begin, end), ns."""

def drop_cut(batch: NativeBatch) -> int:
    """Those of which less was captured than there was."""

def drop_longer(batch: NativeBatch, most: int) -> int:
    """Those of more than so many captured bytes."""

def drop_lane(batch: NativeBatch, lane: int) -> int: ...
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

def reset(batch: NativeBatch) -> None:
    """Take back every mark of dropping."""

def tally(batch: NativeBatch, start: int, stop: int, counts: dict[int, int]) -> None:
    """Add to counts[interface] the records start to stop that are not dropped."""

# Which way packets go. Lanes: 0 primary, 1 secondary, 2 none. `without`: the lane of packets without what is asked for.

def lanes(batch: NativeBatch) -> list[int]: ...
def set_lanes(batch: NativeBatch, lane: int, start: int = 0, stop: int | None = None) -> None: ...
def swap_lanes(batch: NativeBatch) -> None: ...
def lanes_from_cache(batch: NativeBatch, bits: Buffer, first: int) -> None:
    """As two bits a packet say; `first`: how many packets came before. Raises ValueError when there is no word."""

def cache_bits(batch: NativeBatch) -> bytearray:
    """One byte a record: 3 primary, 2 secondary, 0 none."""

def keep_matching(batch: NativeBatch, linktype: int, program: Buffer) -> None:
    """No lane for the packets of a link type that a BPF program does not match."""

def lanes_by_hash(batch: NativeBatch, n: int) -> None:
    """Deal flows to n lanes."""

def lanes_by_port(batch: NativeBatch, servers: Buffer, without: int) -> None:
    """Primary: to one of the server ports, a bit each in 8192 bytes."""

def lanes_by_mac(batch: NativeBatch, macs: Buffer, without: int) -> None:
    """Primary: from one of the MAC addresses, 6 bytes each."""

class Hosts:
    """What is known of hosts: those of every packet are noted in order of appearance."""

    def __len__(self) -> int: ...
    def note(self, batch: NativeBatch) -> None: ...
    def host(self, k: int) -> tuple[bytes, int, int, int, int]:
        """Address, flags (1: was a source; 2: was a destination at first), packets that only a client sends, and that
        only a server sends, port."""
    def set(self, k: int, lane: int, flags: int = 0) -> None:
        """Say which lane the packets of a host go by, and add flags of your own, from 4 on."""
    def lanes(self, batch: NativeBatch, without: int) -> None:
        """By what was said of the source."""
    def keep(self, batch: NativeBatch, bit: int, ends: str, exclude: bool) -> None:
        """No lane for packets unless their source (S), destination (D), both (B) or either (E) have the flag;
        exclude: if they have it."""
    def flow_lanes(self, batch: NativeBatch, without: int) -> None:
        """Primary: from the side that began the flow. A table of its own: not for `note` too."""
    def sender_lanes(self, batch: NativeBatch, most: int) -> tuple[int, int, int]:
        """Narrow packets to their UDP payload, one lane for each original sender, at most so many. Drops the others:
        returns how many were not UDP, fragments, or cut. A table of its own."""

class FlowSet:
    """Counts flows by their addresses, ports and protocol, both directions together."""

    def add(self, batch: NativeBatch) -> None: ...
    counts: tuple[int, int, int]
    """Flows, packets of them, packets without IP."""
