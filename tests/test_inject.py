"""Injection into devices: what is sent arrives, in order and on time, and what cannot be sent is told.

Functions whose names begin with `in_` run in a private network (see namespace.py), in a process of their own.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import namespace
import pytest

from pcaptools.core._core import Cutter
from pcaptools.core.batch import Batch
from pcaptools.errors import DeviceError, UsageError
from pcaptools.net import privileges
from pcaptools.net.inject import BACKENDS, Injector, open_device

MS = 1_000_000  # ns


def batch_of(frames: Sequence[bytes], linktype: int = 1, missing: int = 0) -> Batch:
    """A batch as a reader would make it; `missing` bytes of every packet were not captured."""
    records = [struct.pack("=IIII", 0, 0, len(frame), len(frame) + missing) + frame for frame in frames]
    batch = Batch()
    batch.append(b"".join(records))
    assert Cutter("pcap", linktype=linktype).cut(batch)
    return batch


def ethernet(size: int, fill: int = 0, ethertype: bytes = b"\x88\xb5") -> bytes:
    """A frame of `size` bytes, header included, of an ethertype for experiments."""
    return (b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01" + ethertype + bytes([fill]) * size)[:size]


def numbered(count: int) -> list[bytes]:
    """Small frames that tell their place."""
    return [ethernet(60) + struct.pack("!I", k) for k in range(count)]


def _unfit(injector: Injector, batch: Batch) -> dict[str, int]:
    return injector.mark_unfit(batch, 0, batch.n)


def send_all(injector: Injector, batch: Batch, due: Sequence[int] | None = None) -> int:
    """Send a whole batch; returns the start of its schedule, by time.time_ns()."""
    times = None if due is None else array("q", due)
    wall, t0 = time.time_ns(), injector.now()
    done = 0
    while done < batch.n:
        done = injector.send(batch, done, batch.n, times, t0)
    return wall


def counters(injector: Injector) -> tuple[int, dict[int, int]]:
    return injector.sender.sent, injector.sender.failed


@contextmanager
def veth(**options: Any) -> Iterator[tuple[Injector, namespace.Receiver]]:
    with open_device("pt0", **options) as injector, namespace.Receiver("pt1") as receiver:
        yield injector, receiver


def refusal(name: str) -> str:
    """Why a device cannot be opened."""
    with pytest.raises(DeviceError) as refused:
        open_device(name)
    return str(refused.value)


# --- what is sent arrives -----------------------------------------------------------------------------------------


def in_every_byte(options: dict[str, Any]) -> None:
    source = random.Random(6)
    frames = [ethernet(14) + source.randbytes(source.randint(0, 1500)) for _ in range(1000)]
    frames += [ethernet(1518, 1, b"\x81\0"), ethernet(14), ethernet(1514)]
    with veth(**options) as (injector, receiver):
        send_all(injector, batch_of(frames))
        assert [frame.data for frame in receiver.frames(len(frames))] == frames
        assert counters(injector) == (len(frames), {})
        assert injector.sender.sent_bytes == sum(map(len, frames))
        assert injector.sender.lateness(1.0) == injector.sender.retried == injector.sender.cut == 0


@pytest.mark.parametrize("options", [{}, {"qdisc_bypass": False}, {"backend": "xdp"}, {"backend": "pypcap"}])
def test_every_byte_arrives_in_order(options: dict[str, Any]) -> None:
    namespace.call(in_every_byte, options)


def in_dropped() -> None:
    frames = numbered(600)
    for backend in BACKENDS:
        batch = batch_of(frames, missing=40)
        for k in (0, 1, 300, 599):
            batch.drop(k)
        with veth(backend=backend) as (injector, receiver):
            send_all(injector, batch)
            assert [frame.data for frame in receiver.frames(596)] == frames[2:300] + frames[301:599]
            assert (injector.sender.sent, injector.sender.cut) == (596, 596)


def test_dropped_records_stay_and_cut_packets_are_counted() -> None:
    namespace.call(in_dropped)


def in_raw_ip() -> None:
    packets = [b"\x45" + bytes(39), b"\x60" + bytes(59)]
    with tun() as device, open_device("tun0") as injector:
        assert injector.linktypes == (101, 12, 14, 228, 229)
        assert _unfit(injector, batch_of([ethernet(60)])) == {"linktype": 1, "empty": 0, "short": 0, "long": 0}
        batch = batch_of([*packets, b"\x45" + bytes(1500)], linktype=101)
        assert _unfit(injector, batch) == {"linktype": 0, "empty": 0, "short": 0, "long": 1}
        send_all(injector, batch)
        got = [os.read(device, 2000) for _ in packets]
        assert got == [b"\0\0\x08\0" + packets[0], b"\0\0\x86\xdd" + packets[1]]  # struct tun_pi tells the protocol


@contextmanager
def tun(hardware_type: int = 65534) -> Iterator[int]:
    """A TUN device tun0, up; its kind can be set to any ARPHRD_*."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x0001))  # TUNSETIFF, IFF_TUN
        fcntl.ioctl(device, 0x400454CD, hardware_type)  # TUNSETLINK
        subprocess.run(["ip", "link", "set", "tun0", "addrgenmode", "none"], check=True)
        namespace.set_link("tun0", True)
        yield device
    finally:
        os.close(device)


needs_tun = pytest.mark.skipif(not os.access("/dev/net/tun", os.W_OK), reason="/dev/net/tun is not open to this user")


@needs_tun
def test_ip_devices_take_ip_packets() -> None:
    namespace.call(in_raw_ip)


# --- on time ------------------------------------------------------------------------------------------------------


def in_schedule(backend: str) -> None:
    source = random.Random(7)
    due = sorted(source.randrange(300 * MS) for _ in range(1500))
    with veth(backend=backend) as (injector, receiver):
        start = send_all(injector, batch_of(numbered(len(due))), due)
        frames = receiver.frames(len(due))
        assert [frame.data for frame in frames] == numbered(len(due))
        late = [frame.time - start - planned for frame, planned in zip(frames, due, strict=True)]
        assert min(late) > -MS / 5  # the two clocks are not read at the same instant
        assert sorted(late)[len(late) // 2] < 5 * MS and late[-1] < 100 * MS
        lateness = [injector.sender.lateness(part / 10) for part in range(11)]
        assert lateness == sorted(lateness) and lateness[0] > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_packet_is_early_and_lateness_does_not_add_up(backend: str) -> None:
    namespace.call(in_schedule, backend)


def in_bursts(due: list[int]) -> int:
    frames = numbered(len(due))
    with veth() as (injector, receiver):
        before = injector.now()
        send_all(injector, batch_of(frames), due)
        took = injector.now() - before
        assert [frame.data for frame in receiver.frames(len(frames))] == frames
        return took


def test_packets_due_together_do_not_delay_each_other() -> None:
    took = namespace.call(in_bursts, [burst * 20 * MS for burst in range(5) for _ in range(300)])
    assert 80 * MS <= took < 400 * MS


def test_times_going_backwards_change_nothing_behind_them() -> None:
    took = namespace.call(in_bursts, [0, 30 * MS, 10 * MS, 0, 30 * MS, 60 * MS, 20 * MS])
    assert 60 * MS <= took < 400 * MS


def in_lateness(backend: str) -> None:
    due = [-1000 * MS] * 50 + [-9000 * MS] * 49 + [-20000 * MS]
    with veth(backend=backend) as (injector, _):
        send_all(injector, batch_of(numbered(100)), due)
        lateness = injector.sender.lateness
        for quantile, expected in ((0.01, 1000), (0.5, 1000), (0.51, 9000), (0.99, 9000), (1.0, 20000)):
            assert 0.99 * expected * MS < lateness(quantile) < 1.01 * expected * MS + 100 * MS
        with pytest.raises(ValueError):
            lateness(1.1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_lateness_is_told_within_one_percent(backend: str) -> None:
    namespace.call(in_lateness, backend)


# --- what cannot be sent ------------------------------------------------------------------------------------------

SIZES = [0, 1, 13, 20, 1014, 1015, 1018, 1019]


def in_unfit(backend: str) -> None:
    plain, tagged = [ethernet(size) for size in SIZES], [ethernet(size, 0, b"\x81\0") for size in SIZES]
    service = [ethernet(size, 0, b"\x88\xa8") for size in SIZES]
    with veth(backend=backend) as (injector, receiver):
        assert (injector.name, injector.mtu, injector.linktypes, injector.warning) == ("pt0", 1000, (1,), "")
        for frames, fits in ((plain, [20, 1014]), (tagged, [20, 1014, 1015, 1018]), (service, [20, 1014])):
            batch = batch_of(frames)
            counts = {"linktype": 0, "empty": 1, "short": 2, "long": len(SIZES) - 3 - len(fits)}
            assert _unfit(injector, batch) == counts
            assert not any(_unfit(injector, batch).values())  # those marked are not counted again
            send_all(injector, batch)
            assert [len(frame.data) for frame in receiver.frames(len(fits))] == fits
        assert _unfit(injector, batch_of([ethernet(60)], linktype=101))["linktype"] == 1
        assert counters(injector)[1] == {}


@pytest.mark.parametrize("backend", BACKENDS)
def test_unfit_packets_are_counted_by_reason(backend: str) -> None:
    namespace.call(in_unfit, backend, mtu=1000)


def in_refused(backend: str) -> None:
    frames = numbered(300)
    with veth(backend=backend) as (injector, receiver):
        send_all(injector, batch_of([*frames[:290], ethernet(1515), ethernet(1515), ethernet(13), *frames[290:]]))
        assert [frame.data for frame in receiver.frames(300)] == frames
        assert counters(injector) == (300, {errno.EMSGSIZE: 2, errno.EINVAL: 1})


@pytest.mark.parametrize("backend", BACKENDS)
def test_refusals_by_the_kernel_are_counted_by_errno(backend: str) -> None:
    namespace.call(in_refused, backend)


def in_no_room() -> None:
    with veth() as (injector, receiver):
        namespace.set_link("pt1", False)
        send_all(injector, batch_of(numbered(500)))
        assert counters(injector) == (0, {errno.ENOBUFS: 500})
        assert injector.sender.retried == 100  # of the first packet: the others do not wait so long again
        namespace.set_link("pt1", True)
        send_all(injector, batch_of(numbered(10)))
        assert len(receiver.frames(10)) == 10
        namespace.set_link("pt1", False)
        with alarm(0.01, lambda: namespace.set_link("pt1", True)):
            send_all(injector, batch_of(numbered(10)))
        assert len(receiver.frames(10)) == 10
        assert counters(injector) == (20, {errno.ENOBUFS: 500}) and injector.sender.retried > 100


def test_no_room_is_tried_again_within_bounds() -> None:
    namespace.call(in_no_room)


# --- signals ------------------------------------------------------------------------------------------------------


@contextmanager
def alarm(after: float, action: Callable[[], object]) -> Iterator[None]:
    """Run `action` in a signal handler after so many seconds."""
    before = signal.signal(signal.SIGALRM, lambda *_: action())
    signal.setitimer(signal.ITIMER_REAL, after)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def time_to_interrupt(injector: Injector, due: array[int] | None) -> float:
    """Seconds from a SIGINT, sent from elsewhere while packets are sent for ever, to the KeyboardInterrupt."""
    batch = batch_of(numbered(1000))
    sent_at = []

    def interrupt() -> None:
        time.sleep(0.1)
        sent_at.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    deadline = time.monotonic() + 10
    with pytest.raises(KeyboardInterrupt):
        while time.monotonic() < deadline:
            injector.send(batch, 0, batch.n, due, injector.now())
    return time.monotonic() - sent_at[0]


def in_interrupts(backend: str) -> None:
    far = array("q", [10_000 * MS] * 1000)
    near = array("q", range(0, 50_000_000, 50_000))
    with open_device("pt0", backend=backend) as injector:
        for due in (far, near, None):
            assert min(time_to_interrupt(injector, due) for _ in range(2)) < 0.05


@pytest.mark.parametrize("backend", BACKENDS)
def test_interrupt_ends_waiting_and_sending_at_once(backend: str) -> None:
    namespace.call(in_interrupts, backend)


def in_handler() -> None:
    batch = batch_of(numbered(2))
    ran: list[int] = []
    due = array("q", [0, 10_000 * MS])
    with open_device("pt0") as injector:
        start = injector.now()
        done = 0
        with alarm(0.1, lambda: ran.append(injector.now())):
            while not ran and injector.now() < start + 5000 * MS:
                done = injector.send(batch, done, 2, due, start)
        assert (done, injector.sender.sent) == (1, 1)
        assert injector.now() - ran[0] < 1000 * MS


def test_a_handler_that_returns_gives_the_caller_the_word() -> None:
    namespace.call(in_handler)


# --- devices ------------------------------------------------------------------------------------------------------


def in_refused_devices() -> None:
    assert refusal("pt7") == "pt7: no such device; there are: lo, pt1, pt0"
    assert refusal("").startswith(": no such device")
    assert "no such device" in refusal("a-name-that-is-too-long-for-a-device")
    namespace.set_link("pt0", False)
    assert refusal("pt0") == "pt0: the device is down: ip link set pt0 up"
    assert open_device("pt1").warning == "pt1: no carrier: packets may go nowhere"
    with open_device("lo") as injector:
        assert (injector.mtu, injector.linktypes) == (65536, (1,))
        assert _unfit(injector, batch_of([ethernet(65550), ethernet(65551, 0, b"\x81\0")]))["long"] == 1
    for backend, name in (("carrier-pigeon", "pt1"), ("", "pt1")):
        with pytest.raises(UsageError):
            open_device(name, backend=backend)


def test_devices_that_cannot_be_used_are_refused() -> None:
    namespace.call(in_refused_devices)


def in_hardware_types() -> None:
    for kind, fits in ((512, True), (519, True), (768, True), (776, True), (280, False), (803, False)):
        with tun(kind):
            if fits:
                assert open_device("tun0").linktypes[0] == 101
            else:
                assert refusal("tun0") == f"tun0: neither an Ethernet nor an IP device (hardware type {kind})"


@needs_tun
def test_devices_that_take_no_such_frames_are_refused() -> None:
    namespace.call(in_hardware_types)


def in_lost(backend: str) -> None:
    batch = batch_of(numbered(100))
    due = [k * 10 * MS for k in range(100)]
    for action, state in (
        (lambda: namespace.set_link("pt0", False), "went down (Network is down)"),
        (lambda: subprocess.run(["ip", "link", "del", "pt0"], check=True), "is gone"),
    ):
        namespace.set_link("pt0", True)
        with open_device("pt0", backend=backend) as injector:
            with alarm(0.1, action), pytest.raises(DeviceError) as lost:
                send_all(injector, batch, due)
            sent = injector.sender.sent
            assert str(lost.value) == f"pt0: the device {state} after {sent} packets"
            assert 0 < sent < 100 and not injector.sender.failed


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_device_lost_midway_is_named(backend: str) -> None:
    namespace.call(in_lost, backend)


def in_unprivileged() -> None:
    header, none = struct.pack("Ii", 0x20080522, 0), bytes(24)  # capset(2): version 3, of this process, no capability
    assert ctypes.CDLL(None, use_errno=True).capset(header, none) == 0
    assert refusal("pt0") == "pt0: needs CAP_NET_RAW: run it with sudo"
    with pytest.raises(DeviceError, match="pt0: needs permission: run it with sudo"):
        open_device("pt0", backend="pypcap")


def test_no_permission() -> None:
    namespace.call(in_unprivileged)


def in_file_of_that_name(directory: str) -> None:
    os.chdir(directory)
    with pytest.raises(DeviceError, match="pt0: there is a file of that name"):
        open_device("pt0", backend="pypcap")
    with open_device("pt0"):
        pass


def test_pypcap_does_not_open_a_file(tmp_path: Any) -> None:
    (tmp_path / "pt0").touch()
    namespace.call(in_file_of_that_name, str(tmp_path))


def in_wrong_arguments() -> None:
    batch = batch_of(numbered(3))
    with open_device("pt0") as injector:
        for start, stop, due in ((0, 4, None), (2, 1, None), (0, 3, array("q", [0, 0]))):
            with pytest.raises(ValueError):
                injector.send(batch, start, stop, due, 0)
        assert injector.send(batch, 3, 3, None, 0) == 3
        injector.close()
        with pytest.raises(DeviceError):
            injector.send(batch, 0, 3, None, 0)


def test_wrong_arguments() -> None:
    namespace.call(in_wrong_arguments)


# --- privileges ---------------------------------------------------------------------------------------------------


def in_child(function: Callable[[], None]) -> None:
    """Run in a child process, which may lose its privileges."""
    child = os.fork()
    if not child:
        try:
            function()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def become_nobody() -> None:
    assert privileges.drop_root("nobody") == ""
    assert 0 not in (os.getuid(), os.geteuid(), os.getgid(), os.getegid(), *os.getgroups())
    with pytest.raises(PermissionError):
        os.setuid(0)
    assert "stays as it is" in privileges.drop_root("daemon")


def test_root_is_dropped_for_good() -> None:
    if os.getuid():
        assert privileges.drop_root("nobody") == "not running as root: stays as it is instead of becoming nobody"
    else:
        assert privileges.drop_root("root") == "root is root: nothing is given up"
        in_child(become_nobody)


def in_no_such_id() -> None:
    with pytest.raises(DeviceError, match="cannot become nobody: "):
        privileges.drop_root("nobody")


def test_a_user_that_is_not_to_be_become() -> None:
    with pytest.raises(UsageError, match="no such user: nobody-of-that-name"):
        privileges.drop_root("nobody-of-that-name")
    namespace.call(in_no_such_id)
