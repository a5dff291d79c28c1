"""A network device as a live replay sees it: frames out, frames in, and all of it recorded where that is wanted."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pcaptools.core._core import Cutter
from pcaptools.core.batch import Batch
from pcaptools.net.capture import Arrival, Ring
from pcaptools.net.device import Device
from pcaptools.net.inject import DEFAULT_BACKEND, Injector, open_device

if TYPE_CHECKING:
    from pcaptools.net.pypcap import PcapArrivals

_RECORD = struct.Struct("=IIII")
_SECOND = 1_000_000_000
_ASKING = 3
"""How often a question is asked, a second apart."""


class Line:
    """Sends through an injector, receives through a ring. record: called with the records, as nanosecond pcap keeps
    them, of what was sent and received. warning: what the user should hear before the first packet, or ""."""

    def __init__(
        self, injector: Injector, ring: Ring | PcapArrivals, record: Callable[[object], None] | None = None
    ) -> None:
        self.record = record
        self.warning = injector.warning
        self._injector, self._ring = injector, ring
        self._batch = Batch()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._injector.close()
        self._ring.close()

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

    def ask(self, question: bytes, answer: Callable[[bytes], bytes | None]) -> bytes | None:
        """Send a frame until an answer comes: what `answer` makes of a frame that is one. None: there is none."""
        for _ in range(_ASKING):
            self.send([question])
            until = time.monotonic_ns() + _SECOND
            while (left := until - time.monotonic_ns()) > 0:
                self.wait(left)
                for arrival in self.arrivals():
                    found = answer(arrival.frame)
                    if found is not None:
                        return found
        return None


def open_line(
    device: Device,
    expression: Callable[[], str],
    compile: Callable[[str, int], bytes],
    *,
    vlan: int | None = None,
    backend: str | None = None,
    record: Callable[[object], None] | None = None,
) -> Line:
    """A line through a device. expression: gives what to receive, as pcap-filter(7) has it, once the device's link type
    is known; compile: makes BPF of it; vlan: the 802.1Q tag; backend: "packet", "pypcap" or None for what this system
    has. Raises DeviceError, UsageError."""
    backend = backend or DEFAULT_BACKEND
    injector = open_device(device.name, qdisc_bypass=False, backend=backend)
    try:
        ring: Ring | PcapArrivals
        if backend == "pypcap":
            from pcaptools.net.pypcap import PcapArrivals

            ring = PcapArrivals(device, vlan=vlan)
            ring.listen(expression())
        else:
            ring = Ring(device, compile(expression(), device.linktypes[0]), vlan=vlan)
    except BaseException:
        injector.close()
        raise
    return Line(injector, ring, record)
