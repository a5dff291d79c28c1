"""Connections through the kernel's own TCP and UDP: what happens to any of them, without blocking."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from ipaddress import ip_address
from typing import Any

from pcaptools.errors import DeviceError

OPEN, DATA, END, FAILED = "open", "data", "end", "failed"

_CAUSES = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "closed early",
    errno.EPIPE: "closed early",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ETIMEDOUT: "no answer",
}
_CHUNK = 1 << 18


class Sockets:
    """Any number of sockets in one poll. A socket is known by its number.

    `happened()` returns (number, what, more): OPEN, DATA with the bytes, END when the other side closed, FAILED with
    (cause, words); with `listen`, OPEN for each client with (its address, its port, our port).
    """

    def __init__(self, udp: bool = False) -> None:
        self._kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
        self._poll = select.poll()
        self._sockets: dict[int, socket.socket] = {}
        self._listening: dict[int, int] = {}
        self._opening: set[int] = set()
        self._out: dict[int, bytearray] = {}
        self._closing: set[int] = set()
        self._failed: list[tuple[int, str, Any]] = []

    def connect(self, address: bytes, port: int, source: int | None = None) -> int:
        """Begin to connect; returns the number. source: our port, None for any. Raises DeviceError."""
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        try:
            new = socket.socket(family, self._kind)
            new.setblocking(False)
            if source is not None:
                new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                new.bind(("", source))
        except OSError as error:
            raise DeviceError(f"socket: {error.strerror}") from None
        number = self._add(new)
        result = new.connect_ex((str(ip_address(address)), port))
        if result not in (0, errno.EINPROGRESS):
            self._failed.append((number, FAILED, _cause(result)))
        self._opening.add(number)
        self._poll.modify(new, select.POLLOUT | select.POLLIN)
        return number

    def listen(self, port: int) -> None:
        """Accept clients at a port of every address. Raises DeviceError."""
        try:
            new = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        except (OSError, ValueError):
            try:
                new = socket.create_server(("", port), backlog=1024)
            except OSError as error:
                raise DeviceError(f"port {port}: {error.strerror}") from None
        new.setblocking(False)
        self._listening[self._add(new)] = port

    def _add(self, new: socket.socket) -> int:
        number = new.fileno()
        self._sockets[number] = new
        self._poll.register(new, select.POLLIN)
        return number

    def send(self, number: int, data: bytes) -> None:
        """Queue bytes (of a datagram socket: a datagram)."""
        waiting = self._out.setdefault(number, bytearray())
        waiting += data
        self._write(number)

    def shut(self, number: int) -> None:
        """Close our direction, behind what is queued."""
        self._closing.add(number)
        self._write(number)

    def drop(self, number: int, reset: bool = False) -> None:
        """Close it. reset: at once, by a reset."""
        gone = self._sockets.pop(number, None)
        if gone is None:
            return
        self._poll.unregister(gone)
        self._opening.discard(number)
        self._closing.discard(number)
        self._out.pop(number, None)
        if reset:
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.close()

    def close(self) -> None:
        """Close all."""
        for number in list(self._sockets):
            self.drop(number)

    def happened(self, nanoseconds: int) -> list[tuple[int, str, Any]]:
        """What happens, waited for at most so long."""
        found, self._failed = self._failed, []
        for number, events in self._poll.poll(0 if found else -(-nanoseconds // 1_000_000)):
            if number in self._listening:
                found += self._accept(number)
            elif number in self._sockets:
                found += self._happened(number, events)
        return found

    def _accept(self, listening: int) -> list[tuple[int, str, Any]]:
        found: list[tuple[int, str, Any]] = []
        while True:
            try:
                new, where = self._sockets[listening].accept()
            except OSError:
                return found
            new.setblocking(False)
            found.append((self._add(new), OPEN, (where[0], where[1], self._listening[listening])))

    def _happened(self, number: int, events: int) -> list[tuple[int, str, Any]]:
        one = self._sockets[number]
        if number in self._opening:
            result = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if result:
                return [(number, FAILED, _cause(result))]
            if not events & (select.POLLOUT | select.POLLIN):
                return []
            self._opening.discard(number)
            self._write(number)
            return [(number, OPEN, None)]
        found: list[tuple[int, str, Any]] = []
        if events & select.POLLOUT:
            self._write(number)
        if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
            try:
                data = one.recv(_CHUNK)
            except BlockingIOError:
                return found
            except OSError as error:
                return [(number, FAILED, _cause(error.errno or 0))]
            if data:
                found.append((number, DATA, data))
            elif self._kind == socket.SOCK_STREAM:
                self._poll.modify(one, select.POLLOUT if self._out.get(number) else 0)
                found.append((number, END, None))
        return found

    def _write(self, number: int) -> None:
        one, waiting = self._sockets.get(number), self._out.get(number)
        if one is None or number in self._opening:
            return
        try:
            while waiting:
                del waiting[: one.send(waiting)]
            if number in self._closing:
                self._closing.discard(number)
                one.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError as error:
            self._failed.append((number, FAILED, _cause(error.errno or 0)))
            self._out.pop(number, None)
            return
        self._poll.modify(one, select.POLLIN | (select.POLLOUT if waiting else 0))


def _cause(number: int) -> tuple[str, str]:
    return _CAUSES.get(number, "no answer"), os.strerror(number)
