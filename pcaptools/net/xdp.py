"""AF_XDP sockets on Linux: packets into memory that the kernel shares, past its packet sockets.

Where the driver can read that memory itself it does ("zero copy"), else the kernel copies ("copy mode", any Ethernet
device). See af_xdp.rst of the kernel's documentation, and csrc/xdp.h.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from pcaptools.errors import DeviceError
from pcaptools.net._net import Frames
from pcaptools.net.device import ETHERNET_HEADER, Device
from pcaptools.net.sockets import widen

LARGEST = 4096
"""Bytes of a packet, its link header included: a page of memory."""

_AF_XDP = 44  # <bits/socket.h>; Python has no name for it


def open_frames(devices: Sequence[Device], queues: int = 1) -> tuple[list[Frames], Callable[[], None]]:
    """For each device and each of its first queues an AF_XDP socket, ready to send; and what closes them.

    Packets beyond LARGEST count as beyond the device's MTU, which is lowered. Raises DeviceError.
    """
    with ExitStack() as opened:
        found = [_open(device, queue, opened) for device in devices for queue in range(queues)]
        return found, opened.pop_all().close


def _open(device: Device, queue: int, opened: ExitStack) -> Frames:
    if device.header != ETHERNET_HEADER:
        raise DeviceError(f"{device.name}: AF_XDP is for Ethernet devices: leave --xdp out")
    try:
        own = opened.enter_context(socket.socket(_AF_XDP, socket.SOCK_RAW, 0))
    except PermissionError:
        raise DeviceError(f"{device.name}: needs CAP_NET_RAW: run it with sudo") from None
    except OSError as error:
        raise DeviceError(f"{device.name}: no AF_XDP in this kernel ({error.strerror}): leave --xdp out") from None
    widen(own)
    try:
        frames = Frames(own.fileno(), device.index, queue, device.mtu + device.header, device.tag)
    except OSError as error:
        raise DeviceError(f"{device.name}: {_reason(error, queue)}") from None
    opened.callback(frames.close)
    device.mtu = min(device.mtu, LARGEST - device.header - device.tag)
    return frames


def _reason(error: OSError, queue: int) -> str:
    """Why the kernel refused a step, and what to do."""
    if error.filename == "memory" and error.errno in (errno.ENOBUFS, errno.EPERM, errno.ENOMEM, errno.EAGAIN):
        return "AF_XDP needs 4 MiB of locked memory, more than ulimit -l allows: raise it, or run it with sudo"
    if error.filename == "bind" and error.errno == errno.EINVAL:
        return f"AF_XDP finds no queue {queue} there: fewer --threads, or leave --xdp out"
    if error.filename == "bind" and error.errno == errno.EBUSY:
        return f"another AF_XDP socket has its queue {queue}"
    return f"AF_XDP: {error.filename}: {error.strerror}"
