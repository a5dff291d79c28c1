"""Reading captures: pcap in all variants that libpcap reads, and pcapng, from files and pipes, plain or compressed.

Format specifications: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng. The cutting into records is native
(core/csrc/records.h); here are the file headers, the reading, and the words for what is damaged.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from typing import Any

from pcaptools.core._core import Cutter
from pcaptools.core.batch import READ_CAPACITY, Batch
from pcaptools.errors import DamagedError, InputError, NotACaptureError
from pcaptools.files.streams import decompressed, name_of, open_raw, read_head

HEADER = 24
"""Bytes of a pcap file header."""

_SECTION = b"\x0a\x0d\x0d\x0a"

# Magic number as a big-endian machine wrote it: (nanoseconds, bytes of a record header).
_MAGIC = {0xA1B2C3D4: (False, 16), 0xA1B23C4D: (True, 16), 0xA1B2CD34: (False, 24)}

_FOREIGN = (
    (b"snoop\0\0\0", "a snoop capture: convert it with editcap"),
    (b"GMBU", "a Network Monitor capture: convert it with editcap"),
    (b"RTSS", "a Network Monitor capture: convert it with editcap"),
    (b"TRSNIFF data", "a Sniffer capture: convert it with editcap"),
    (b"XCP\0", "a NetXRay capture: convert it with editcap"),
    (b"PK\3\4", "a zip archive"),
    (b"\x1f\x9d", "compressed by compress(1)"),
)

_DAMAGE = {
    1: "captured length {} exceeds the limit of {limit} bytes",
    2: "block length {} is impossible or unlike its repetition at the block's end",
    3: "block of {} bytes is too short for its contents",
    4: "block of type {} where a section header must be",
    5: "section header with byte-order magic {:#010x}",
    6: "section of version {}, which is not known",
    7: "packet of interface {}, which is not described",
    8: "more than {} interfaces",
    9: "option {} reaches beyond its block",
    10: "no memory",
}


class Capture:
    """One capture being read.

    name: what messages call it. format: `pcap`, `nspcap`, `modified pcap` or `pcapng`. packets: read so far. Iterating
    yields batches, the same one reused; DamagedError is raised behind the last sound one.
    """

    def __init__(self, raw: Any, name: str) -> None:
        """`raw` is a stream (files/streams.py), plain or compressed. Raises InputError, of which NotACaptureError."""
        self.name = name
        self.packets = 0
        self._offset = 0
        self._damage: DamagedError | None = None
        self._uncut = False
        try:
            self._stream = decompressed(raw, name)
            self._rest = read_head(self._stream, HEADER)
        except DamagedError as error:
            raise InputError(f"{name}: {error}") from None
        except OSError as error:
            raise InputError(f"{name}: {error.strerror or error}") from None
        if self._rest[:4] == _SECTION:
            self.format = "pcapng"
            self._cutter = Cutter("pcapng")
            self._header = 0
        else:
            self._cutter = self._read_header(self._rest)
            self._header = HEADER

    def _read_header(self, head: bytes) -> Cutter:
        order, nanoseconds, record_header = self._byte_order(head)
        if len(head) < HEADER:
            raise InputError(f"{self.name}: cut short inside the file header: {len(head)} of {HEADER} bytes")
        major, minor, _, _, snaplen, network = struct.unpack(order + "HHIIII", head[4:])
        if not (major == 2 and minor <= 4) and (major, minor) != (543, 0):
            raise InputError(f"{self.name}: pcap version {major}.{minor} is not known")
        self.format = "modified pcap" if record_header > 16 else "nspcap" if nanoseconds else "pcap"
        return Cutter(
            "pcap",
            swapped=order != ("<" if sys.byteorder == "little" else ">"),
            nanoseconds=nanoseconds,
            header=record_header,
            swapped_lengths=0 if (major, minor) == (2, 4) else 1 if (major, minor) == (2, 3) else 2,
            linktype=network & 0xFFFF,
            snaplen=snaplen,
        )

    def _byte_order(self, head: bytes) -> tuple[str, bool, int]:
        for order in "<>":
            magic = struct.unpack(order + "I", head[:4])[0] if len(head) >= 4 else 0
            if magic in _MAGIC:
                return order, *_MAGIC[magic]
        if not head:
            raise NotACaptureError(f"{self.name}: empty: not a capture")
        for start, what in _FOREIGN:
            if head.startswith(start):
                raise NotACaptureError(f"{self.name}: not a pcap or pcapng capture but {what}")
        raise NotACaptureError(f"{self.name}: not a pcap or pcapng capture")

    @property
    def interfaces(self) -> list[tuple[int, int, int, int]]:
        """(link type, snap length, if_tsresol, if_tsoffset) of every interface met so far, of all sections."""
        return self._cutter.interfaces

    @property
    def compression(self) -> str | None:
        """`gzip`, `zstd`, `lz4`, `xz`, `bzip2`, or None."""
        kind: str | None = getattr(self._stream, "kind", None)
        return kind

    def fill(self, batch: Batch) -> bool:
        """Read the next batch; False at the end. Raises DamagedError once all that is sound was delivered."""
        if self._damage:
            raise self._damage
        batch.clear()
        batch.append(self._rest)
        self._rest = b""
        if self._header:
            batch.skip(self._header)
            self._header = 0
        start = batch.used
        sound = self._cutter.cut(batch) if self._uncut else True
        end = False
        while sound and batch.used == start and not end:
            end = not self._read(batch)
            sound = self._cutter.cut(batch)
        self._keep_rest(batch, sound, end)
        if batch.used:
            return True
        if self._damage:
            raise self._damage
        return False

    def _keep_rest(self, batch: Batch, sound: bool, end: bool) -> None:
        """Note what is wrong, and what belongs to the next batch."""
        self.packets += batch.n
        if not sound:
            self._damage = self._damaged_record()
        elif end and not self._damage and batch.filled > batch.used:
            have, need = batch.filled - batch.used, self._cutter.need
            self._damage = self._damaged(batch.used, f"cut short: {have} of {need} bytes are there")
        self._offset += batch.used
        self._rest = b"" if self._damage else batch.rest()
        self._uncut = len(self._rest) >= self._cutter.need

    def _read(self, batch: Batch) -> bool:
        """Read once behind what the batch holds. False at the end, and where compressed data is damaged."""
        need = max(self._cutter.need, 1)
        if batch.used + need > batch.capacity:
            batch.reserve(batch.used + need + (1 << 16))
        try:
            got = self._stream.readinto(batch.room())
        except DamagedError as error:
            self._damage = DamagedError(f"{self.name}: {error}; {self.packets + batch.n} packets before it are sound")
            return False
        except OSError as error:
            raise InputError(f"{self.name}: {error.strerror or error}") from None
        batch.fill(got or 0)
        return bool(got)

    def _damaged_record(self) -> DamagedError:
        assert self._cutter.damage is not None
        kind, at, value = self._cutter.damage
        return self._damaged(at, _DAMAGE[kind].format(value, limit=self._cutter.limit))

    def _damaged(self, at: int, what: str) -> DamagedError:
        error = DamagedError(f"{self.name}: packet {self.packets + 1} at offset {self._offset + at}: {what}")
        error.offset = self._offset + at
        return error

    def __iter__(self) -> Iterator[Batch]:
        batch = Batch(READ_CAPACITY)
        while self.fill(batch):
            yield batch

    def ahead(self, batches: int) -> Iterator[Batch]:
        """As iterating, but another thread reads up to so many batches ahead, so that a slow disk delays nobody."""
        import threading
        from queue import SimpleQueue

        free: SimpleQueue[Batch] = SimpleQueue()
        filled: SimpleQueue[Batch | BaseException | None] = SimpleQueue()

        def read() -> None:
            try:
                while self.fill(batch := free.get()):
                    filled.put(batch)
                filled.put(None)
            except BaseException as error:
                filled.put(error)

        for _ in range(batches + 1):
            free.put(Batch())
        threading.Thread(target=read, daemon=True).start()
        while (item := filled.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
            free.put(item)

    def close(self) -> None:
        """Close the file below, if there is one."""
        close = getattr(self._stream, "close", None)
        if close:
            close()


def open_capture(path: str | None) -> Capture:
    """Open a capture for reading; None and `-` are standard input. Raises InputError."""
    return Capture(open_raw(path), name_of(path))
