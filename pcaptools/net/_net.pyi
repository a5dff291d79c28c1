from pcaptools.core._core import NativeBatch

def calibrate() -> int:
    """Measure for about 3 ms how long this thread oversleeps: the margin for a Sender, ns.

    Sets the timer slack and the time slice of the calling thread to the least: call it in the thread that sends.
    """

class Sender:
    """Sends batches through `fd`, a packet socket bound to its device, which it does not close.

    margin_ns: how long before a due time sleeping ends and spinning begins. interface: the index of the device
    when its frames begin with the IP header, else 0.
    """

    def __init__(self, fd: int, *, margin_ns: int = 100_000, interface: int = 0) -> None: ...
    def send(self, batch: NativeBatch, start: int, stop: int, due: object, t0: int) -> int:
        """Send the records [start, stop) that are not dropped; returns the index of the first one not handled.

        due: buffer of int64, due[k] the time at which record k of the batch is due, ns after t0 (CLOCK_MONOTONIC);
        None: all of them at once. Times may repeat and go backwards: order is that of the records, and a late
        packet goes at once.

        It returns early, with less than `stop`, about every 20 ms and when a signal came: call it again from there,
        with the same due and t0. Signal handlers run before it returns, in the main thread; what they raise passes.
        The GIL is released: nobody else may touch the batch.

        Raises OSError (ENETDOWN, ENXIO, ENODEV) when the device went down or away; the counts stay right.
        Every other refusal by the kernel is counted in `failed`.
        """

    def lateness(self, quantile: float) -> int:
        """How late packets were at most, ns, of that part of the timed ones which was least late; 0 if there are none.

        It is the time at which the kernel had taken a packet, less its due time, within 0.4 %; exact for 1.0.
        """

    @property
    def margin_ns(self) -> int: ...
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
