"""Re-sending UDP payloads through ordinary sockets: no privilege, and one local socket for each original sender."""

from __future__ import annotations

import socket
import time
from typing import Any

from pcaptools.core._core import NativeBatch
from pcaptools.core._sides import Hosts
from pcaptools.errors import DeviceError, UsageError
from pcaptools.net.inject import PLAIN, Manner, _lane
from pcaptools.net.sockets import widen

MOST = 512
"""Sockets; more senders share them."""


class Datagrams:
    """The payload of every UDP packet goes to one address. As `Injector`; the warnings come with the report."""

    now = staticmethod(time.monotonic_ns)
    cut_to_mtu = 0
    warning = ""
    narrows = True
    """Batches do not hold whole packets any more when they are sent."""

    def __init__(self, target: str, manner: Manner = PLAIN) -> None:
        """target: HOST:PORT, an IPv6 address in brackets. Raises UsageError, DeviceError."""
        from pcaptools.net._net import Sender, calibrate

        self.name = target
        self._family, self._address = _resolve(target)
        self._hosts = Hosts()
        self._sockets = [self._open()]
        self.sender = Sender(
            [self._sockets[0].fileno()],
            margin_ns=calibrate(),
            spin=manner.spin,
            skip_late=manner.skip_late,
            tolerance_ns=manner.tolerance,
        )

    def _open(self) -> socket.socket:
        one = socket.socket(self._family, socket.SOCK_DGRAM)
        try:
            widen(one)
            one.connect(self._address)
        except OSError as error:
            one.close()
            raise DeviceError(f"{self.name}: {error.strerror or error}") from None
        return one

    def __enter__(self) -> Datagrams:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._sockets:
            one.close()

    def mark_unfit(self, batch: NativeBatch, start: int, stop: int) -> dict[str, int]:
        """Narrow packets to their payload; others are marked, and counted by reason."""
        other, fragments, cut = self._hosts.sender_lanes(batch, MOST)
        while len(self._sockets) < min(len(self._hosts), MOST):
            self._sockets.append(self._open())
            self.sender.add_lane(self._sockets[-1].fileno())
        return {"not UDP": other, "fragment": fragments, "cut": cut}

    def send(self, batch: NativeBatch, start: int, stop: int, due: object, t0: int) -> int:
        """As `_net.Sender.send`. Raises DeviceError when there is no way to the address any more."""
        try:
            return self.sender.send(batch, start, stop, due, t0)
        except OSError as error:
            raise DeviceError(f"{self.name}: {error.strerror} after {self.sender.sent} packets") from None

    def interfaces(self) -> list[dict[str, Any]]:
        """What became of the datagrams, of all sockets together."""
        lanes = [_lane(self.name, self.sender, lane) for lane in range(self.sender.lanes)]
        counts = {name: sum(one[name] for one in lanes) for name in lanes[0] if name != "device"}
        return [{"device": self.name, **counts}]


def _resolve(target: str) -> tuple[int, Any]:
    host, colon, port = target.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536 or not host:
        raise UsageError(f"--udp: '{target}' is not HOST:PORT")
    try:
        family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
    except OSError as error:
        raise DeviceError(f"--udp: {host}: {error.strerror or error}") from None
    return family, address
