"""Receiving from a network device on Linux: a packet socket whose frames the kernel writes into a ring (packet(7)).

The kernel filters (BPF), so that only what is meant for us is written. A frame larger than a slot of the ring, such as
one that the device joined from many, waits whole in the socket beside it (PACKET_COPY_THRESH).
"""

from __future__ import annotations

import ctypes
import mmap
import select
import socket
import struct
import sys
from collections import namedtuple

from pcaptools.errors import DeviceError
from pcaptools.net.device import Device

Arrival = namedtuple("Arrival", "time frame checked")
"""A frame: ns since the epoch, its bytes, and whether its checksums need no look: the device vouches."""

# <linux/if_packet.h>, <asm/socket.h>, <linux/if_ether.h>
_SOL_PACKET, _ADD_MEMBERSHIP, _RX_RING, _STATISTICS, _COPY_THRESH, _VERSION, _IGNORE_OUTGOING = 263, 1, 5, 6, 7, 10, 23
_TPACKET_V2, _ALLMULTI, _ETH_P_ALL = 1, 2, 3
_USER, _COPY, _LOSING, _SUM_NOT_READY, _VLAN, _SUM_VALID = 0x1, 0x2, 0x4, 0x8, 0x10, 0x80
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33
_HEADER = struct.Struct("IIIHHIIHH")  # struct tpacket2_hdr

_SLOT, _BLOCK = 2048, 1 << 16
_BUFFER = 16 << 20


class Ring:
    """What arrives at a device from here on and passes the filter.

    program: BPF as libpcap compiles it for the device's link type, 8 bytes an instruction. vlan: the 802.1Q tag that
    frames must bear, None for none. slots: frames that it holds. Use it as a context manager.
    """

    def __init__(self, device: Device, program: bytes, *, vlan: int | None = None, slots: int = 8192) -> None:
        """Raises DeviceError."""
        if sys.platform != "linux":
            raise DeviceError(f"{device.name}: receiving is possible on Linux only: use --socket")
        self._vlan = vlan
        self._next, self._slots = 0, slots
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except PermissionError:
            raise DeviceError(f"{device.name}: needs CAP_NET_RAW: run it with sudo, or use --socket") from None
        try:
            self._set_up(device, program)
        except OSError as error:
            self._socket.close()
            raise DeviceError(f"{device.name}: {error.strerror or error}") from None
        self._poll = select.poll()
        self._poll.register(self._socket.fileno(), select.POLLIN)

    def _set_up(self, device: Device, program: bytes) -> None:
        packets = self._socket
        self._filter(program)
        packets.setsockopt(_SOL_PACKET, _VERSION, _TPACKET_V2)
        packets.setsockopt(_SOL_PACKET, _COPY_THRESH, _SLOT)
        packets.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        try:
            packets.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        except PermissionError:
            packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        size = self._slots * _SLOT
        packets.setsockopt(_SOL_PACKET, _RX_RING, struct.pack("IIII", _BLOCK, size // _BLOCK, _SLOT, self._slots))
        self._ring = mmap.mmap(packets.fileno(), size)
        if device.header:
            membership = struct.pack("iHH8x", device.index, _ALLMULTI, 0)
            packets.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, membership)
        packets.bind((device.name, _ETH_P_ALL))

    def _filter(self, program: bytes) -> None:
        code = ctypes.create_string_buffer(program, len(program))
        packed = struct.pack("HL", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, packed)

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop receiving."""
        self._ring.close()
        self._socket.close()

    def wait(self, nanoseconds: int) -> None:
        """Until something arrives, or so long. Raises DeviceError when the device went down."""
        for _, happened in self._poll.poll(-(-nanoseconds // 1_000_000)):
            if happened & select.POLLERR:
                number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                raise DeviceError(f"the device went down (error {number})")

    def arrivals(self) -> list[Arrival]:
        """What has arrived since the last call."""
        found: list[Arrival] = []
        ring, at = self._ring, self._next * _SLOT
        while True:
            status, size, length, mac, _, seconds, nanoseconds, tci, _ = _HEADER.unpack_from(ring, at)
            if not status & _USER:
                return found
            frame = ring[at + mac : at + mac + length] if length == size else self._large(status)
            ring[at : at + 4] = b"\0\0\0\0"
            self._next = (self._next + 1) % self._slots
            at = self._next * _SLOT
            vlan = tci & 0xFFF if status & _VLAN else None
            if frame and vlan == self._vlan:
                vouched = bool(status & (_SUM_NOT_READY | _SUM_VALID))
                found.append(Arrival(seconds * 1_000_000_000 + nanoseconds, frame, vouched))
            if len(found) >= self._slots:
                return found

    def _large(self, status: int) -> bytes:
        """A frame that no slot holds; empty when there was no room for it, as if it had been lost."""
        if not status & _COPY:
            return b""
        try:
            return self._socket.recv(1 << 18, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""

    @property
    def lost(self) -> int:
        """Frames for which there was no room since the last call."""
        return int(struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))[1])
