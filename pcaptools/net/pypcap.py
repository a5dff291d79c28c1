"""Sending and capturing through libpcap: for systems without packet(7), and as --backend pypcap on Linux.

The only importer of the module `pcap`, which is pypcap or pcap-ct, whichever serves this Python. One packet a call and
a Python object each: fine for thousands of packets a second, not for millions. The loop keeps the contract of
`_net.Sender`, described in _net.pyi.
"""

from __future__ import annotations

import errno
import os
import select
import struct
import time
from collections import Counter
from math import ceil
from typing import Any

from pcaptools.core._core import Cutter, NativeBatch
from pcaptools.core.batch import Batch, Record
from pcaptools.errors import DeviceError, UsageError
from pcaptools.net.capture import Arrival
from pcaptools.net.device import ETHERNET, ETHERNET_HEADER, RAW_IP, Device

PT_DROP = 2  # pt_record.flags of core/csrc/batch.h

_SLICE = 20_000_000  # ns: a call returns after that
_MARGIN = 200_000  # ns: what time.sleep() oversleeps
_TOLERANCE = 1_000_000  # ns: a packet is late beyond that
_TRIES = 100  # of a packet that finds no room, 1 ms apart
_NO_ROOM = (errno.ENOBUFS, errno.EAGAIN, errno.ENOMEM)
_GONE = (errno.ENETDOWN, errno.ENXIO, errno.ENODEV)

_LINKTYPES = {0: (0,), 1: ETHERNET, 12: RAW_IP, 14: RAW_IP, 101: RAW_IP, 108: (108,)}


def open_pcap(device: Device) -> Any:
    """A libpcap handle on the device; fills in its link types where only libpcap knows them. Raises DeviceError."""
    pcap = _module(device.name)
    try:
        handle = pcap.pcap(device.name, promisc=False)
        handle.setfilter("less 0")  # nothing is to be received
    except OSError as error:
        raise DeviceError(f"{device.name}: {_refusal(error)}") from None
    linktypes = _LINKTYPES.get(handle.datalink())
    if not linktypes:
        handle.close()
        raise DeviceError(f"{device.name}: neither an Ethernet nor an IP device")
    if not device.linktypes:
        device.linktypes = linktypes
        device.header = ETHERNET_HEADER if linktypes == ETHERNET else 0
    return handle


def _module(device: str) -> Any:
    """pypcap or pcap-ct. Raises DeviceError where it is missing, or would open a file instead of the device."""
    if os.path.exists(device):
        raise DeviceError(f"{device}: there is a file of that name, and libpcap would open it: run it elsewhere")
    try:
        import pcap
    except ImportError:
        raise DeviceError(f"{device}: the Python package pypcap (from 3.12 on: pcap-ct) is missing") from None
    return pcap


def _refusal(error: OSError) -> str:
    text = _text(error)
    return "needs permission: run it with sudo" if "permi" in text.lower() else text


def _text(error: OSError) -> str:
    """What libpcap said: bytes from pypcap, str from pcap-ct."""
    said = error.args[0] if error.args else ""
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)


def _errno(error: OSError) -> int:
    """The number behind `send: Message too long`, which is all that libpcap passes on."""
    text = _text(error)
    return next((number for number in errno.errorcode if text.endswith(os.strerror(number))), errno.EIO)


class PcapSender:
    """As `_net.Sender`, through a handle of the module `pcap`."""

    def __init__(self, handle: Any) -> None:
        self.sent = self.sent_bytes = self.cut = self.retried = 0
        self.timed = self.delayed = self.skipped = self.alive = 0
        self.gap = (0, 0)
        self.failed: dict[int, int] = {}
        self._handle = handle
        self._tries = 0
        self._late: Counter[int] = Counter()
        self._latest = 0

    def close(self) -> None:
        """Close the handle, once: libpcap would crash at the second time."""
        handle, self._handle = self._handle, None
        if handle:
            handle.close()

    def send(self, batch: NativeBatch, start: int, stop: int, due: Any, t0: int) -> int:
        """As `_net.Sender.send`."""
        times = None if due is None else memoryview(due).cast("B").cast("q")
        slice_end = time.monotonic_ns() + _SLICE
        for k in range(start, stop):
            record = Record._make(batch.record(k))
            if record.flags & PT_DROP:
                continue
            if times is not None and not _wait(t0 + times[k], slice_end):
                return k
            if self._send(bytes(batch.packet(k)), record) and times is not None:
                self._note_lateness(time.monotonic_ns() - t0 - times[k])
            if time.monotonic_ns() >= slice_end:
                return k + 1
        return stop

    def _send(self, packet: bytes, record: Record) -> bool:
        """Whether the packet went out. Raises OSError when the device is gone."""
        number = self._try(packet)
        while number in _NO_ROOM and self._tries < _TRIES:
            self._tries += 1
            self.retried += 1
            time.sleep(0.001)
            number = self._try(packet)
        if number:
            self.failed[number] = self.failed.get(number, 0) + 1
            return False
        self._tries = 0
        self.sent += 1
        self.sent_bytes += len(packet)
        self.cut += record.caplen < record.wirelen
        return True

    def _try(self, packet: bytes) -> int:
        try:
            self._handle.sendpacket(packet)
        except OSError as error:
            number = _errno(error)
            if number in _GONE:
                raise OSError(number, os.strerror(number)) from None
            return number
        return 0

    def _note_lateness(self, late: int) -> None:
        self.timed += 1
        self.delayed += late > _TOLERANCE
        self.alive = time.monotonic_ns()
        self._latest = max(self._latest, late)
        shift = max(late.bit_length() - 8, 0)
        self._late[(late >> shift << shift) + (1 << shift >> 1)] += 1

    def lane(self, k: int) -> dict[str, int]:
        """As `_net.Sender.lane`; there is one. Tries are not told apart."""
        failed = sum(self.failed.values())
        counts = {"sent": self.sent, "bytes": self.sent_bytes, "failed": failed, "cut": self.cut}
        return {**counts, "no_room": self.retried, "again": 0}

    def lateness(self, quantile: float) -> int:
        """As `_net.Sender.lateness`."""
        if not 0 <= quantile <= 1:
            raise ValueError("a quantile is between 0 and 1")
        seen = 0
        rank = ceil(quantile * sum(self._late.values()))
        for late in sorted(self._late):
            seen += self._late[late]
            if seen >= rank and quantile < 1:
                return min(late, self._latest)
        return self._latest


def _wait(when: int, slice_end: int) -> bool:
    """Wait until `when`; False when the slice ends first. Signal handlers run on the way."""
    now = time.monotonic_ns()
    while now < when:
        if now >= slice_end:
            return False
        if when - now > _MARGIN:
            time.sleep((min(when - _MARGIN, slice_end) - now) / 1e9)
        now = time.monotonic_ns()
    return True


_DLT = {12: 101, 14: 101}
"""Link types of captures, where a system numbers those of its devices otherwise."""

_PIECE = 4096  # packets
_TAG = b"\x81\0"  # 802.1Q


class PcapReceiver:
    """As `net.ring.Ring`, through the module `pcap`: a Python object a packet. The length that a cut packet had on the
    wire is lost."""

    again = 0
    unfiltered = False

    def __init__(self, name: str, expression: str | None, snaplen: int, promiscuous: bool) -> None:
        """Raises DeviceError, UsageError."""
        pcap = _module(name)
        self.name = name
        try:
            handle = pcap.pcap(name, snaplen=snaplen, promisc=promiscuous, timeout_ms=20, timestamp_in_ns=True)
        except OSError as error:
            raise DeviceError(f"{name}: {_refusal(error)}") from None
        if expression is not None:
            try:
                handle.setfilter(expression)
            except OSError as error:
                raise UsageError(f"filter '{expression}': {_text(error)}") from None
        handle.setnonblock(True)
        self._handle: Any = handle
        self.linktype: int = _DLT.get(handle.datalink(), handle.datalink())
        self._cutter = Cutter("pcap", nanoseconds=True, linktype=self.linktype, snaplen=snaplen)
        self._poll = select.poll()
        self._poll.register(handle.fileno(), select.POLLIN)

    def __enter__(self) -> PcapReceiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, milliseconds: int) -> None:
        """As `net.ring.Ring.wait`."""
        self._poll.poll(milliseconds)

    def receive(self, batch: Batch) -> bool:
        """As `net.ring.Ring.receive`."""
        pieces: list[bytes] = []

        def keep(time: int, packet: bytes) -> None:
            pieces.extend((struct.pack("=4I", *divmod(time, 1_000_000_000), len(packet), len(packet)), packet))

        try:
            self._handle.dispatch(_PIECE, keep)
        except OSError as error:
            raise DeviceError(f"{self.name}: {_text(error)}") from None
        batch.clear()
        batch.append(b"".join(pieces))
        self._cutter.cut(batch)
        return batch.n > 0

    @property
    def lost(self) -> int:
        """Packets that found no room with the kernel, so far."""
        return int(self._handle.stats()[1])

    def close(self) -> None:
        """Stop capturing."""
        handle, self._handle = self._handle, None
        if handle:
            handle.close()


class PcapArrivals:
    """As `net.capture.Ring`, through the module `pcap`: frames as they arrive, each at once, without what our own
    packets look like on their way out. Checksums count as sound, since libpcap does not say which the device vouches
    for. `listen` begins it."""

    def __init__(self, device: Device, *, vlan: int | None = None) -> None:
        """vlan: the 802.1Q tag that frames must bear, None for none. Fills in the device's link types where only
        libpcap knows them. Raises DeviceError."""
        pcap = _module(device.name)
        self._name, self._vlan = device.name, vlan
        try:
            # Frames to any address are wanted: ours may be one that the device does not know.
            handle = pcap.pcap(device.name, snaplen=262144, promisc=True, immediate=True, timestamp_in_ns=True)
        except OSError as error:
            raise DeviceError(f"{device.name}: {_refusal(error)}") from None
        self._handle: Any = handle
        handle.setfilter("less 0")
        handle.setnonblock(True)
        handle.setdirection(pcap.PCAP_D_IN)  # what cannot tell directions has the filter
        if not device.linktypes:
            device.linktypes = _LINKTYPES.get(handle.datalink(), ())
            device.header = ETHERNET_HEADER if device.linktypes == ETHERNET else 0
        self._poll = select.poll()
        self._poll.register(handle.fileno(), select.POLLIN)

    def listen(self, expression: str) -> None:
        """Take from now on what matches a filter expression, inside of the tag where there is one."""
        self._handle.setfilter(expression if self._vlan is None else f"vlan {self._vlan} and ({expression})")

    def __enter__(self) -> PcapArrivals:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, nanoseconds: int) -> None:
        """Until something arrives, or so long."""
        self._poll.poll(-(-nanoseconds // 1_000_000))

    def arrivals(self) -> list[Arrival]:
        """What has arrived since the last call. Raises DeviceError when the device went down."""
        found: list[Arrival] = []

        def keep(time: int, frame: bytes) -> None:
            tagged = frame[12:14] == _TAG
            vlan = int.from_bytes(frame[14:16], "big") & 0xFFF if tagged else None
            if vlan == self._vlan:
                found.append(Arrival(time, frame[:12] + frame[16:] if tagged else frame, True))

        try:
            self._handle.dispatch(_PIECE, keep)
        except OSError as error:
            raise DeviceError(f"{self._name}: {_text(error)}") from None
        return found

    def close(self) -> None:
        """Stop receiving."""
        handle, self._handle = self._handle, None
        if handle:
            handle.close()
