from collections.abc import Sequence

from typing_extensions import Buffer

class NativeBatch:
    """n whole records in one native buffer. Offsets and lengths are in bytes, times in ns since the epoch."""

    def __init__(self, capacity: int = ...) -> None: ...
    n: int
    """Whole records."""
    used: int
    """Bytes up to the end of the last whole record or block."""
    filled: int
    """Bytes read; those behind `used` begin a record that is not whole yet."""
    capacity: int
    pcapng: bool
    swapped: bool
    """Headers are in the other byte order than this machine's."""

    def reserve(self, capacity: int) -> None:
        """Make the buffer at least that large; views into it die. Raises MemoryError."""
    def clear(self) -> None:
        """Forget records and bytes."""
    def swap(self, other: NativeBatch) -> None:
        """Exchange all contents with another batch, without copying."""
    def give_bytes(self, other: NativeBatch) -> None:
        """Exchange buffers with another batch: it gets the bytes, without the records; this one is empty then."""
    def append(self, data: Buffer) -> None:
        """Add bytes behind `filled`, growing the buffer as needed."""
    def room(self) -> memoryview:
        """The free space behind `filled`, to be read into."""
    def fill(self, size: int) -> None:
        """Take `size` bytes of `room()` as read."""
    def skip(self, size: int) -> None:
        """Count the first `size` bytes as used though they hold no record: a file header."""
    def view(self) -> memoryview:
        """The bytes up to `used`: file format."""
    def rest(self) -> bytes:
        """A copy of the bytes from `used` to `filled`."""
    def record(self, k: int) -> tuple[int, ...]: ...
    def time(self, k: int) -> int:
        """Time of record k, ns since the epoch."""
    def run(self, start: int, until: int, inclusive: bool) -> int:
        """First record behind `start` whose time is not before `until` (or, inclusive, is after it)."""
    def time_range(self) -> tuple[int, int] | tuple[()]:
        """Earliest and latest time; empty without a record."""
    def packet(self, k: int) -> memoryview: ...
    def linktype(self, k: int) -> int: ...
    linktypes: list[int]
    """Link type of every interface that the reader has met so far."""
    def where(self, k: int) -> tuple: ...
    def locate(self) -> None:
        """Find the headers of every packet, once."""
    def drop(self, k: int) -> None:
        """Mark record k for removal by the next `compact()`, `to_pcap()` or `to_pcapng()`."""
    def mark_unfit(
        self, start: int, stop: int, linktypes: Sequence[int], largest: int, least: int, tag: int
    ) -> dict[str, int]:
        """Mark, of records start to stop, those that a device cannot carry; returns how many for which reason.

        linktypes: those that it carries (at most 8). largest, least: bytes, link header included; tag: bytes that an
        802.1Q tag (0x8100, the outermost) may add to them. Reasons: "linktype", "empty", "short", "long"; a packet
        has one, the first of these. Marked ones are not counted again."""
    def drop_other_linktypes(self, linktype: int) -> int:
        """Mark the packets of another link type; returns how many."""
    def compact(self) -> None:
        """Remove the marked records in place; all other bytes keep their order."""
    def drop_stale_options(self) -> None:
        """Take the hashes out of the pcapng blocks of edited packets; blocks keep their length."""
    def forget_section_length(self) -> None:
        """Set the length of a section header at the start of the batch to "unknown"."""
    def sums(self, fix: bool) -> tuple[list[int], list[int]]:
        """Verify every checksum; with fix, recompute the wrong ones. Returns how many (IP header, transport)
        checksums were as `batch.SUMS` names them, before the fix."""
    def to_pcap(self, nanoseconds: bool) -> tuple[int, int]:
        """Turn the records into classic pcap ones, in place, in host byte order; all other bytes go. Returns how many
        timestamps lost digits, and how many were before 1970 or too late for 32 bits of seconds: these become the first
        or the last moment that the format has."""
    def to_pcapng(self, out: NativeBatch, numbers: Sequence[int]) -> int:
        """Append the records to `out` as enhanced packet blocks with ns timestamps; numbers[i] is the number of
        interface i there. Returns how many timestamps were before 1970: these become its first moment."""

class Cutter:
    """Cuts a stream into whole records: the state of one capture being read.

    format is "pcap" or "pcapng". For pcap: swapped (byte order), nanoseconds, header (bytes of a record header),
    swapped_lengths (0 no, 1 where captured > wire length, 2 always), linktype and snaplen of its only interface.
    """

    def __init__(
        self,
        format: str,
        *,
        swapped: bool = False,
        nanoseconds: bool = False,
        header: int = 16,
        swapped_lengths: int = 0,
        linktype: int | None = None,
        snaplen: int = 0,
    ) -> None: ...
    def cut(self, batch: NativeBatch) -> bool:
        """Index the whole records behind `batch.used`. False: sound only up to `damage`."""
    need: int
    """Bytes that the record behind the last whole one takes, as far as known."""
    limit: int
    """Largest captured length, in bytes, that a packet like the last one may have."""
    damage: tuple[int, int, int] | None
    """(enum pt_damage, offset in the batch, offending number)."""
    interfaces: list[tuple[int, int, int, int]]
    """(link type, snap length, if_tsresol, if_tsoffset) of every interface of every section so far."""
    interface_count: int
    def interface(self, k: int) -> tuple[int, int, int, int]: ...

class Program:
    """A BPF program for one link type, as the bytes of libpcap's struct bpf_insn. Raises ValueError."""

    def __init__(self, linktype: int, instructions: bytes) -> None: ...
    def drop_others(self, batch: NativeBatch) -> int:
        """Mark the packets of the program's link type that do not match; returns how many."""
