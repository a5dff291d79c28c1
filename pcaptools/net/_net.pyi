from collections.abc import Iterable

from pcaptools.core._core import NativeBatch

def calibrate() -> int:
    """Measure for about 3 ms how long this thread oversleeps: the margin for a Sender, ns.

    Sets the timer slack and the time slice of the calling thread to the least: call it in the thread that sends.
    """

class Frames:
    """An AF_XDP socket, which stays its owner's, made ready to send packets of at most `largest` bytes (and `tag` more
    with an 802.1Q tag) out of a queue of the device with the index `interface`.

    Raises OSError, whose filename tells what was refused: "memory" to share, "rings", or "bind".
    """

    def __init__(self, fd: int, interface: int, queue: int, largest: int, tag: int) -> None: ...
    def close(self) -> None:
        """Wait, for 0.1 s at most, until the packets under way are sent; then let the memory go."""

    @property
    def zero_copy(self) -> bool:
        """Whether the driver reads packets where they are."""

class Sender:
    """Sends batches through descriptors, which it does not close: packet sockets bound to their devices, connected
    sockets, or TAP devices.

    fds: one, or one for each lane: a record goes by its lane when there are several; with the way "xdp" they are
    Frames, which must stay open. margin_ns: how long before a due time sleeping ends and spinning begins; spin False:
    it sleeps to the end. interface: the index of the device when its frames begin with the IP header, else 0;
    neighbour: the link address that the kernel puts in front of such frames, 6 bytes. way: "sendmmsg", "xdp", or
    "write", one packet a call. skip_late: packets later than tolerance_ns are left out, marked as dropped and counted
    in `skipped`; otherwise sent, and counted in `delayed`. only: the one lane whose records this sender sees to,
    through its first descriptor; -1: all.
    """

    def __init__(
        self,
        fds: int | Iterable[int] | Iterable[Frames],
        *,
        margin_ns: int = 100_000,
        interface: int = 0,
        neighbour: bytes | None = None,
        way: str = "sendmmsg",
        spin: bool = True,
        skip_late: bool = False,
        tolerance_ns: int = 1_000_000,
        only: int = -1,
    ) -> None: ...
    def send(self, batch: NativeBatch, start: int, stop: int, due: object, t0: int) -> int:
        """Send the records [start, stop) that are not dropped; returns the index of the first one not handled.

        due: buffer of int64, due[k] the time at which record k of the batch is due, ns after t0 (CLOCK_MONOTONIC);
        None: all of them at once. Times may repeat and go backwards: order is that of the records, and a late
        packet goes at once.

        It returns early, with less than `stop`, about every 20 ms and when a signal came: call it again from there,
        with the same due and t0. Signal handlers run before it returns, in the main thread; what they raise passes.
        The GIL is released: nobody else may touch the batch.

        Raises OSError (ENETDOWN, ENXIO, ENODEV) when the device went down or away; the counts stay right.
        Every other refusal by the kernel is counted in `failed`, and the record marked as dropped.
        """

    def add_lane(self, fd: int) -> None:
        """One more descriptor, for the lane behind the last."""

    def lane(self, k: int) -> dict[str, int]:
        """What became of the packets of lane k: sent, bytes, failed, cut, and tries repeated for ENOBUFS (no_room) and
        EAGAIN (again)."""

    def lateness(self, quantile: float) -> int:
        """How late packets were at most, ns, of that part of the timed ones which was least late; 0 if there are none.

        It is the time at which the kernel had taken a packet, less its due time, within 0.4 %; exact for 1.0.
        """

    @property
    def margin_ns(self) -> int: ...
    @property
    def lanes(self) -> int: ...
    @property
    def alive(self) -> int:
        """When this sender last read the clock, ns."""

    @property
    def gap(self) -> tuple[int, int]:
        """The last two readings of the clock that were more than 50 ms apart, ns; zeros if there were none."""

    @property
    def timed(self) -> int:
        """Packets sent that had a due time."""

    @property
    def delayed(self) -> int:
        """Packets sent later than the tolerance."""

    @property
    def skipped(self) -> int:
        """Packets not sent because they were late."""

    @property
    def unheard(self) -> int:
        """Datagrams of connected sockets that were refused: nobody listens."""

    @property
    def sent(self) -> int: ...
    @property
    def sent_bytes(self) -> int: ...
    @property
    def cut(self) -> int:
        """Packets sent that are shorter than they were on the wire."""

    @property
    def retried(self) -> int:
        """Tries that were repeated because the device had no room."""

    @property
    def failed(self) -> dict[int, int]:
        """Packets that the kernel refused, by errno."""
