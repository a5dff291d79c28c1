"""Sending packets out of a network device: on Linux through a packet socket (packet(7)), elsewhere through libpcap."""

from __future__ import annotations

import socket
import sys
import time
from typing import TYPE_CHECKING

from pcaptools.errors import DeviceError, UsageError
from pcaptools.net.device import Device, exists

if TYPE_CHECKING:
    from collections.abc import Callable

    from pcaptools.core._core import NativeBatch
    from pcaptools.net._net import Sender
    from pcaptools.net.pypcap import PcapSender

BACKENDS = ("packet", "pypcap")
DEFAULT_BACKEND = "packet" if sys.platform == "linux" else "pypcap"

_SOL_PACKET, _PACKET_QDISC_BYPASS, _SO_SNDBUFFORCE = 263, 20, 32  # <linux/if_packet.h>, <asm/socket.h>
_SEND_BUFFER = 4 << 20  # bytes: several rings of a fast device, which reports what it has sent in batches


class Injector:
    """A device that packets are sent out of.

    name; mtu: bytes without the link header, 0 when unknown; linktypes: pcap link types that fit; warning: what the
    user should hear before the first packet, or "". sender: the counters (`sent`, `sent_bytes`, `cut`, `failed`,
    `retried`, `lateness()`); see `_net.Sender`. Close it, or use it as a context manager.
    """

    now = staticmethod(time.monotonic_ns)
    """The clock of every schedule, ns."""

    def __init__(
        self,
        device: Device,
        sender: Sender | PcapSender,
        close: Callable[[], None],
    ) -> None:
        self.name = device.name
        self.mtu = device.mtu
        self.linktypes = device.linktypes
        self.warning = "" if device.carrier else f"{device.name}: no carrier: packets may go nowhere"
        self.sender = sender
        self.close = close
        self._device = device

    def __enter__(self) -> Injector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def mark_unfit(self, batch: NativeBatch, start: int, stop: int) -> dict[str, int]:
        """Mark, of records start to stop, those that the device cannot carry; returns how many for which reason.

        "linktype": not one of `linktypes`; "empty": no bytes; "short": less than a link header; "long": more than the
        MTU and the link header, and the VLAN tag that Linux grants beyond it (802.1Q, the outermost only).
        """
        device = self._device
        largest = device.mtu + device.header if device.mtu else 0xFFFFFFFF
        return batch.mark_unfit(start, stop, device.linktypes, largest, device.header, device.tag)

    def send(self, batch: NativeBatch, start: int, stop: int, due: object, t0: int) -> int:
        """Send the records [start, stop); returns the first one not handled: see `_net.Sender.send`.

        Raises DeviceError when the device went down or away.
        """
        try:
            return self.sender.send(batch, start, stop, due, t0)
        except OSError as error:
            state = f"went down ({error.strerror})" if exists(self.name) else "is gone"
            raise DeviceError(f"{self.name}: the device {state} after {self.sender.sent} packets") from None


def open_device(name: str, *, qdisc_bypass: bool = True, backend: str = DEFAULT_BACKEND) -> Injector:
    """Open a device to send packets out of it.

    qdisc_bypass: past the queueing discipline and the taps of this machine (PACKET_QDISC_BYPASS). backend: one of
    BACKENDS. Raises DeviceError when the device is missing, down, forbidden or unfit; UsageError when the backend
    does not exist here.
    """
    if backend not in BACKENDS:
        raise UsageError(f"{backend}: no such backend; there are: {', '.join(BACKENDS)}")
    if backend == "packet" and sys.platform != "linux":
        raise UsageError("the backend packet exists on Linux only: use pypcap")
    device = Device(name)
    return _open_packet(device, qdisc_bypass) if backend == "packet" else _open_pypcap(device)


def _open_packet(device: Device, qdisc_bypass: bool) -> Injector:
    from pcaptools.net._net import Sender, calibrate

    packets = _packet_socket(device, qdisc_bypass)
    sender = Sender(packets.fileno(), margin_ns=calibrate(), interface=0 if device.header else device.index)
    return Injector(device, sender, packets.close)


def _packet_socket(device: Device, qdisc_bypass: bool) -> socket.socket:
    """A socket that sends and, being bound to no protocol, receives nothing."""
    try:
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError:
        raise DeviceError(f"{device.name}: needs CAP_NET_RAW: run it with sudo") from None
    except OSError as error:
        raise DeviceError(f"{device.name}: {error.strerror}") from None
    try:
        packets.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, int(qdisc_bypass))
        _widen(packets)
        packets.bind((device.name, 0))
    except OSError as error:
        packets.close()
        raise DeviceError(f"{device.name}: {error.strerror}") from None
    return packets


def _widen(packets: socket.socket) -> None:
    """A large send buffer: beyond the system's limit where that is allowed, else up to it."""
    try:
        packets.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
    except PermissionError:
        packets.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)


def _open_pypcap(device: Device) -> Injector:
    from pcaptools.net.pypcap import PcapSender, open_pcap

    sender = PcapSender(open_pcap(device))
    return Injector(device, sender, sender.close)
