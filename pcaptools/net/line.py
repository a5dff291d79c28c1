"""A network device as a live replay sees it: frames out, frames in, and all of it recorded where that is wanted."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

from pcaptools.core._core import Cutter
from pcaptools.core.batch import Batch
from pcaptools.net.capture import Arrival, Ring
from pcaptools.net.inject import Injector

_RECORD = struct.Struct("=IIII")
_SECOND = 1_000_000_000


class Line:
    """Sends through an injector, receives through a ring. record: called with the records, as nanosecond pcap keeps
    them, of what was sent and received."""

    def __init__(self, injector: Injector, ring: Ring, record: Callable[[object], None] | None = None) -> None:
        self.record = record
        self._injector, self._ring = injector, ring
        self._batch = Batch()

    def send(self, frames: list[bytes]) -> None:
        """Send frames, with their checksums computed. Raises DeviceError when the device went down."""
        if not frames:
            return
        seconds, nanoseconds = divmod(time.time_ns(), _SECOND)
        pieces: list[bytes] = []
        for frame in frames:
            pieces += (_RECORD.pack(seconds, nanoseconds, len(frame), len(frame)), frame)
        batch = self._batch
        batch.clear()
        batch.append(b"".join(pieces))
        Cutter("pcap", nanoseconds=True, linktype=self._injector.linktypes[0]).cut(batch)
        batch.sums(True)
        done = 0
        while done < batch.n:
            done = self._injector.send(batch, done, batch.n, None, 0)
        if self.record:
            self.record(batch.view())

    def arrivals(self) -> list[Arrival]:
        """What has arrived."""
        found = self._ring.arrivals()
        if found and self.record:
            for arrival in found:
                size = len(arrival.frame)
                self.record(_RECORD.pack(*divmod(arrival.time, _SECOND), size, size) + arrival.frame)
        return found

    def wait(self, nanoseconds: int) -> None:
        """Until something arrives, or so long."""
        self._ring.wait(nanoseconds)
