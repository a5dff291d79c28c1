"""Capturing from a network device: batches of whole records, as if a file of them were read.

On Linux out of a ring that the kernel writes (packet(7), TPACKET_V3; the native part is csrc/receive.h), elsewhere, and
where asked for, through libpcap (net/pypcap.py). `open_live` chooses.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import socket
import struct
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from pcaptools.core._core import Cutter
from pcaptools.core.batch import Batch
from pcaptools.errors import DeviceError, UsageError
from pcaptools.net.device import hardware

if TYPE_CHECKING:
    from pcaptools.net.pypcap import PcapReceiver

ANY = "any"
"""The name that stands for all devices."""

SLL2, RAW = 276, 101
SNAPLEN = 262144

# ARPHRD_* of <linux/if_arp.h>: the pcap link type of frames that a packet socket delivers with their header.
_LINKTYPES = {1: 1, 772: 1, 801: 105, 802: 119, 803: 127, 512: 101, 519: 101, 768: 101, 769: 101, 776: 101, 65534: 101}
_LOOPBACK = 772

# <linux/if_packet.h>, <asm/socket.h>, <linux/if_ether.h>
_SOL_PACKET, _ADD_MEMBERSHIP, _RX_RING, _STATISTICS, _VERSION, _IGNORE_OUTGOING = 263, 1, 5, 6, 10, 23
_TPACKET_V3, _PROMISCUOUS, _ETH_P_ALL, _SO_ATTACH_FILTER = 2, 1, 3, 26
_BLOCK, _FRAME = 1 << 20, 1 << 11
_RETIRE = 10
"""ms after which the kernel hands over a block that is not full."""

Compile = Callable[[str, int], bytes]
"""Makes the BPF program of an expression for a link type; raises UsageError (files/bpf.py)."""


class Ring:
    """What passes a device from here on and matches an expression, on Linux. Use it as a context manager.

    name: of the device. linktype: of the records. unfiltered: the kernel could not apply the expression: whoever
    receives has to. again: packets left out because they were seen at another device. lost: packets for which the ring
    had no room.
    """

    def __init__(
        self,
        name: str,
        expression: str | None,
        compile: Compile,
        *,
        snaplen: int = SNAPLEN,
        size: int = 64 << 20,
        promiscuous: bool = True,
    ) -> None:
        """size: bytes of the ring, a multiple of 1 MiB. Raises DeviceError, UsageError."""
        self.name = name
        self.unfiltered = False
        self._lost = 0
        kind = 0 if name == ANY else hardware(name)
        cooked = kind not in _LINKTYPES
        self.linktype = SLL2 if cooked else _LINKTYPES[kind]
        program = self._program(expression, compile, RAW if cooked else self.linktype)
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM if cooked else socket.SOCK_RAW, 0)
        except PermissionError:
            raise DeviceError(f"{name}: needs CAP_NET_RAW: run it with sudo") from None
        try:
            self._attach(_cut(program, snaplen))
            self._set_up(size, kind == _LOOPBACK, promiscuous)
        except OSError as error:
            self._socket.close()
            raise DeviceError(f"{name}: {error.strerror or error}") from None
        self._read_blocks(snaplen, cooked)
        self._poll = select.poll()
        self._poll.register(self._socket.fileno(), select.POLLIN)

    def _program(self, expression: str | None, compile: Compile, linktype: int) -> bytes:
        """What the kernel runs. It sees frames without their VLAN tag, and cooked ones without any link header."""
        if expression is None:
            return b""
        program = None
        if "vlan" not in expression:
            try:
                program = compile(expression, linktype)
            except UsageError:
                if linktype == self.linktype:
                    raise
        if program is None:
            compile(expression, self.linktype)
            self.unfiltered = True
        return program or b""

    def _attach(self, program: bytes) -> None:
        code = ctypes.create_string_buffer(program, len(program))
        packed = struct.pack("HL", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, packed)

    def _set_up(self, size: int, loopback: bool, promiscuous: bool) -> None:
        packets = self._socket
        packets.setsockopt(_SOL_PACKET, _VERSION, _TPACKET_V3)
        if loopback:
            packets.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)  # each packet passes twice, out and in
        request = struct.pack("7I", _BLOCK, size // _BLOCK, _FRAME, size // _FRAME, _RETIRE, 0, 0)
        packets.setsockopt(_SOL_PACKET, _RX_RING, request)
        self._memory = mmap.mmap(packets.fileno(), size)
        if self.name == ANY:
            self._bind_to_all()
            return
        if promiscuous:
            index = socket.if_nametoindex(self.name)
            packets.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, struct.pack("iHH8x", index, _PROMISCUOUS, 0))
        packets.bind((self.name, _ETH_P_ALL))

    def _bind_to_all(self) -> None:
        """As bind(2) to no device in particular, for which `socket` has no words."""
        address = struct.pack("=HHiHBB8x", socket.AF_PACKET, socket.htons(_ETH_P_ALL), 0, 0, 0, 0)  # struct sockaddr_ll
        if ctypes.CDLL(None, use_errno=True).bind(self._socket.fileno(), address, len(address)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def _read_blocks(self, snaplen: int, cooked: bool) -> None:
        from pcaptools.net._ring import Blocks

        self._blocks = Blocks(
            self._memory, _BLOCK, snaplen=snaplen, cooked=cooked, once=self.name == ANY, tagged=self.linktype == 1
        )
        self._cutter = Cutter("pcap", nanoseconds=True, linktype=self.linktype, snaplen=snaplen)

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, milliseconds: int) -> None:
        """Until something arrives, or so long. Raises DeviceError when the device went down or away."""
        for _, what in self._poll.poll(milliseconds):
            if what & select.POLLERR:
                self._failed()

    def receive(self, batch: Batch) -> bool:
        """Fill a batch with what has arrived; whether there is anything."""
        batch.clear()
        batch.reserve(2 * self._blocks.least)
        batch.fill(self._blocks.take(batch.room()))
        self._cutter.cut(batch)
        return batch.n > 0

    def _failed(self) -> None:
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise DeviceError(f"{self.name}: {os.strerror(number)}: nothing more can be captured")

    @property
    def lost(self) -> int:
        """Packets that found no room in the ring, so far."""
        self._lost += struct.unpack("III", self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 12))[1]
        return self._lost

    @property
    def again(self) -> int:
        """Packets left out because they had been taken at another device."""
        return self._blocks.again

    def close(self) -> None:
        """Stop capturing."""
        self._blocks.close()
        self._memory.close()
        self._socket.close()


def _cut(program: bytes, snaplen: int) -> bytes:
    """A program whose accepting instructions keep so many bytes; the empty one accepts everything."""
    returns = 0x06  # BPF_RET | BPF_K
    code = [*struct.iter_unpack("=HBBI", program)] or [(returns, 0, 0, snaplen)]
    return b"".join(struct.pack("=HBBI", op, yes, no, snaplen if op == returns and k else k) for op, yes, no, k in code)


def open_live(
    name: str,
    expression: str | None,
    compile: Compile,
    *,
    backend: str = "",
    snaplen: int = SNAPLEN,
    size: int = 64 << 20,
    promiscuous: bool = True,
) -> Source:
    """Begin to capture. backend: "packet", "pypcap", or "" for what this system has. The rest as `Ring`, which alone
    minds the size. Raises DeviceError, UsageError."""
    if (backend or ("packet" if sys.platform == "linux" else "pypcap")) == "pypcap":
        from pcaptools.net.pypcap import PcapReceiver

        return PcapReceiver(name, expression, snaplen, promiscuous)
    if sys.platform != "linux":
        raise DeviceError(f"{name}: packet sockets exist on Linux only: use --backend pypcap")
    return Ring(name, expression, compile, snaplen=snaplen, size=size, promiscuous=promiscuous)


if TYPE_CHECKING:
    Source = Ring | PcapReceiver
