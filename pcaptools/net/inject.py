"""Sending packets out of network devices: on Linux through packet sockets (packet(7)) or AF_XDP, elsewhere through
libpcap."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pcaptools.errors import DeviceError, UsageError
from pcaptools.net.device import ETHERNET_HEADER, Device, exists
from pcaptools.net.sockets import widen

if TYPE_CHECKING:
    from pcaptools.core._core import NativeBatch

BACKENDS = ("packet", "xdp", "pypcap")
DEFAULT_BACKEND = "packet" if sys.platform == "linux" else "pypcap"

_SOL_PACKET, _PACKET_QDISC_BYPASS = 263, 20  # <linux/if_packet.h>


class Manner(NamedTuple):
    """How packets are sent, whatever they are sent through.

    spin: for the last stretch before a due time, else sleep only. skip_late: leave out what is later than tolerance,
    ns. cut_to_mtu: shorten what is beyond the MTU.
    """

    spin: bool = True
    skip_late: bool = False
    tolerance: int = 1_000_000
    cut_to_mtu: bool = False


PLAIN = Manner()


class Injector:
    """One device or several that packets are sent out of, by the lanes of the records when there are several.

    name, mtu (bytes without the link header, 0 when unknown), linktypes (pcap link types that fit): of the first one.
    warning: what the user should hear before the first packet, or "". sender: the counters (`sent`, `sent_bytes`,
    `cut`, `failed`, `retried`, `lateness()`); see `_net.Sender`. Close it, or use it as a context manager.
    """

    now = staticmethod(time.monotonic_ns)
    """The clock of every schedule, ns."""

    def __init__(
        self, devices: Sequence[Device], sender: Any, close: Callable[[], None], manner: Manner = PLAIN
    ) -> None:
        device = devices[0]
        self.name = device.name
        self.mtu = device.mtu
        self.linktypes = device.linktypes
        silent = [one.name for one in devices if not one.carrier]
        self.warning = f"{' and '.join(silent)}: no carrier: packets may go nowhere" if silent else ""
        self.sender = sender
        self.close = close
        self.cut_to_mtu = 0
        self._devices = devices
        self._manner = manner

    def __enter__(self) -> Injector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def mark_unfit(self, batch: NativeBatch, start: int, stop: int) -> dict[str, int]:
        """Mark, of records start to stop, those that their device cannot carry; returns how many for which reason.

        "linktype": not one of `linktypes`; "empty": no bytes; "short": less than a link header; "long": more than the
        MTU and the link header, and the VLAN tag that Linux grants beyond it (802.1Q, the outermost only).
        """
        counts: dict[str, int] = {}
        for lane, device in enumerate(self._devices):
            only = lane if len(self._devices) > 1 else -1
            for reason, packets in self._mark_unfit(batch, start, stop, device, only).items():
                counts[reason] = counts.get(reason, 0) + packets
        return counts

    def _mark_unfit(self, batch: NativeBatch, start: int, stop: int, device: Device, lane: int) -> dict[str, int]:
        from pcaptools.core._replay import cut_longer, mark_unfit_lane

        largest = device.mtu + device.header if device.mtu else 0xFFFFFFFF
        if self._manner.cut_to_mtu:
            self.cut_to_mtu += cut_longer(batch, start, stop, lane, largest, device.tag)
        limits = largest, device.header, device.tag
        if lane < 0:
            return batch.mark_unfit(start, stop, device.linktypes, *limits)
        return mark_unfit_lane(batch, start, stop, lane, device.linktypes, *limits)

    def send(self, batch: NativeBatch, start: int, stop: int, due: object, t0: int) -> int:
        """Send the records [start, stop); returns the first one not handled: see `_net.Sender.send`.

        Raises DeviceError when the device went down or away.
        """
        try:
            following: int = self.sender.send(batch, start, stop, due, t0)
            return following
        except OSError as error:
            gone = next((device.name for device in self._devices if not exists(device.name)), "")
            state = "is gone" if gone else f"went down ({error.strerror})"
            name = gone or self.name
            raise DeviceError(f"{name}: the device {state} after {self.sender.sent} packets") from None

    def interfaces(self) -> list[dict[str, Any]]:
        """What became of the packets, by device."""
        return [_lane(device.name, self.sender, lane) for lane, device in enumerate(self._devices)]


def _lane(name: str, sender: Any, lane: int) -> dict[str, Any]:
    counts = sender.lane(lane)
    return {
        "device": name,
        "packets": counts["sent"],
        "bytes": counts["bytes"],
        "failed": counts["failed"],
        "truncated": counts["cut"],
        "retried_enobufs": counts["no_room"],
        "retried_eagain": counts["again"],
    }


def open_device(name: str, *, qdisc_bypass: bool = True, backend: str = DEFAULT_BACKEND) -> Injector:
    """Open a device to send packets out of it: see open_devices."""
    return open_devices([name], qdisc_bypass=qdisc_bypass, backend=backend)


def open_devices(
    names: Sequence[str],
    *,
    qdisc_bypass: bool = True,
    backend: str = DEFAULT_BACKEND,
    manner: Manner = PLAIN,
    threads: int = 1,
    neighbour: bytes | None = None,
) -> Injector:
    """Open devices to send packets out of them.

    qdisc_bypass: past the queueing discipline and the taps of this machine (PACKET_QDISC_BYPASS). backend: one of
    BACKENDS. threads: so many send through the only device. neighbour: raw IP packets get an Ethernet header with this
    destination. Raises DeviceError when a device is missing, down, forbidden or unfit; UsageError when the backend does
    not exist here.
    """
    if backend not in BACKENDS:
        raise UsageError(f"{backend}: no such backend; there are: {', '.join(BACKENDS)}")
    if backend != "pypcap" and sys.platform != "linux":
        raise UsageError(f"the backend {backend} exists on Linux only: use pypcap")
    if backend == "xdp" and (neighbour or not qdisc_bypass):
        raise UsageError("AF_XDP sends whole frames, and past the queueing discipline")
    if backend == "pypcap" and (len(names) > 1 or threads > 1 or neighbour or manner.skip_late):
        raise UsageError("the backend pypcap sends to one device, and whatever is due")
    devices = [Device(name) for name in names]
    if backend == "pypcap":
        return _open_pypcap(devices[0])
    if backend == "xdp":
        return _open_xdp(devices, manner, threads)
    return _open_packet(devices, qdisc_bypass, manner, threads, neighbour)


def _open_xdp(devices: Sequence[Device], manner: Manner, threads: int) -> Injector:
    from pcaptools.net.xdp import LARGEST, open_frames

    jumbo = next((device for device in devices if device.mtu + device.header + device.tag > LARGEST), None)
    frames, close = open_frames(devices, threads)
    injector = Injector(devices, _sender(frames, threads, manner, way="xdp"), close, manner)
    if jumbo and not injector.warning:
        largest = jumbo.mtu + jumbo.header
        injector.warning = f"{jumbo.name}: AF_XDP takes {largest} bytes a packet: longer ones count as beyond the MTU"
    return injector


def _sender(targets: Sequence[Any], threads: int, manner: Manner, **options: Any) -> Any:
    """A sender through the targets (descriptors, or Frames), one for each lane or for each thread."""
    from pcaptools.net._net import Sender, calibrate
    from pcaptools.net.parallel import ParallelSender

    options |= {
        "margin_ns": calibrate(),
        "spin": manner.spin,
        "skip_late": manner.skip_late,
        "tolerance_ns": manner.tolerance,
    }
    return ParallelSender(targets, options) if threads > 1 else Sender(targets, **options)


def _open_packet(
    devices: Sequence[Device], qdisc_bypass: bool, manner: Manner, threads: int, neighbour: bytes | None
) -> Injector:
    from contextlib import ExitStack

    for device in devices if neighbour else ():
        _behind_neighbour(device)
    with ExitStack() as opened:
        wanted = list(devices) * (threads if len(devices) == 1 else 1)
        sockets = [opened.enter_context(_packet_socket(device, qdisc_bypass, neighbour)) for device in wanted]
        fds = [one.fileno() for one in sockets]
        interface = 0 if devices[0].header else devices[0].index
        sender = _sender(fds, threads, manner, interface=interface, neighbour=neighbour)
        return Injector(devices, sender, opened.pop_all().close, manner)


def _behind_neighbour(device: Device) -> None:
    """Packets for the device begin with the IP header: the kernel puts the Ethernet header in front."""
    from pcaptools.net.device import RAW_IP

    if device.header != ETHERNET_HEADER:
        raise DeviceError(f"{device.name}: not an Ethernet device: raw IP packets need no header there")
    device.linktypes, device.header, device.tag = RAW_IP, 0, 0


def _packet_socket(device: Device, qdisc_bypass: bool, neighbour: bytes | None = None) -> socket.socket:
    """A socket that sends and, being bound to no protocol, receives nothing."""
    try:
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM if neighbour else socket.SOCK_RAW, 0)
    except PermissionError:
        raise DeviceError(f"{device.name}: needs CAP_NET_RAW: run it with sudo") from None
    except OSError as error:
        raise DeviceError(f"{device.name}: {error.strerror}") from None
    try:
        packets.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, int(qdisc_bypass))
        widen(packets)
        packets.bind((device.name, 0))
    except OSError as error:
        packets.close()
        raise DeviceError(f"{device.name}: {error.strerror}") from None
    return packets


def _open_pypcap(device: Device) -> Injector:
    from pcaptools.net.pypcap import PcapSender, open_pcap

    sender = PcapSender(open_pcap(device))
    return Injector([device], sender, sender.close)
