"""When packets are due: integers, exact, without drift."""

import array
import random
import struct
from fractions import Fraction

import pytest
from captures import batches, one_batch, pcap_header

from pcaptools.engines import pace

SECOND = 10**9


def due(schedule, batch, start: int = 0, stop: int | None = None) -> list[int]:
    stop = batch.n if stop is None else stop
    out = array.array("q", bytes(8 * batch.n))
    schedule.due(batch, start, stop, out)
    return out.tolist()[start:stop]


def at_times(*times: int, size: int = 60):
    """A batch of packets with these times in ns."""
    return one_batch([(time // SECOND, time % SECOND, bytes(size), size) for time in times], magic=0xA1B23C4D)


def test_the_recorded_pace():
    times = [5 * SECOND + 17, 5 * SECOND + 17, 6 * SECOND, 7 * SECOND + 999_999_999]
    assert due(pace.recorded(Fraction(1)), at_times(*times)) == [time - times[0] for time in times]


@pytest.mark.parametrize("speed", ["1", "2", "3", "1/3", "0.7", "1e6", "1e-6", "7/11", "123456789/1000000007"])
def test_any_multiplier_is_exact(speed):
    chance = random.Random(speed)
    times = sorted(chance.randrange(2**32 * SECOND) for _ in range(500))
    expected = [int(Fraction(time - times[0]) / Fraction(speed)) for time in times]
    limit = 2**63 - 1
    assert due(pace.recorded(pace.parse_speed(speed)), at_times(*times)) == [min(value, limit) for value in expected]


def test_time_that_runs_backwards():
    """Before the first packet: at once. Before the one before it: at its own time."""
    assert due(pace.recorded(Fraction(1)), at_times(100, 50, 300, 200)) == [0, 0, 200, 100]


@pytest.mark.parametrize("rate", ["1", "3", "7", "1000000", "1/3", "14880952.38"])
def test_packets_per_second(rate):
    schedule = pace.packets_per_second(pace.parse_speed(rate))
    batch = at_times(*[5] * 2000)
    expected = [int(k * SECOND / Fraction(rate)) for k in range(4000)]
    assert due(schedule, batch) + due(schedule, batch) == expected
    assert schedule.packets == 4000


@pytest.mark.parametrize("rate", ["1", "3.7", "100", "9999"])
def test_megabits_per_second(rate):
    chance = random.Random(rate)
    sizes = [chance.randint(0, 1514) for _ in range(1000)]
    batch = one_batch([bytes(size) for size in sizes])
    before = [sum(sizes[:k]) for k in range(1000)]
    expected = [int(size * 8 * 1000 / Fraction(rate)) for size in before]
    assert due(pace.megabits_per_second(pace.parse_speed(rate)), batch) == expected


def test_loops_begin_where_the_last_ended():
    batch = at_times(100, 300, 700)
    schedule = pace.recorded(Fraction(2))
    assert due(schedule, batch) == [0, 100, 300]
    schedule.rewind()
    assert due(schedule, batch) == [300, 400, 600]
    schedule.rewind()
    assert due(schedule, batch) == [600, 700, 900]
    assert schedule.last == 900


def test_loops_of_a_rate_go_on():
    schedule = pace.packets_per_second(Fraction(1000))
    batch = at_times(5, 5)
    assert due(schedule, batch) == [0, 10**6]
    schedule.rewind()
    assert due(schedule, batch) == [2 * 10**6, 3 * 10**6]


def test_slices_are_the_whole():
    chance = random.Random(2)
    times = [chance.randrange(10**12) for _ in range(100)]
    batch = at_times(*times)
    schedule = pace.recorded(Fraction(3, 7))
    assert due(schedule, batch, 0, 33) + due(schedule, batch, 33, 34) + due(schedule, batch, 34, 34) + due(
        schedule, batch, 34
    ) == due(pace.recorded(Fraction(3, 7)), batch)


def test_dropped_packets_take_no_time():
    for schedule, expected in (
        (pace.packets_per_second(Fraction(1000)), [0, 10**6]),
        (pace.recorded(Fraction(1)), [0, 20]),
    ):
        batch = at_times(5, 10, 20, 30)
        batch.drop(0)
        batch.drop(2)
        values = due(schedule, batch)
        assert [values[1], values[3]] == expected
    assert schedule.packets == 2


def test_a_million_packets_do_not_drift():
    """A third of the recorded speed, at times that no float holds: each due time is the exact one, rounded down."""
    step, first, speed = 333_333_337, 1_700_000_000 * SECOND + 1, Fraction(3, 7)
    times = [first + k * step for k in range(10**6)]
    records = b"".join(struct.pack("<IIII", *divmod(time, SECOND), 0, 0) for time in times)
    schedule, k = pace.recorded(speed), 0
    out = array.array("q", bytes(8 * 70_000))
    for batch in batches(pcap_header(magic=0xA1B23C4D) + records, 1 << 20):
        schedule.due(batch, 0, batch.n, out)
        assert out[: batch.n].tolist() == [i * step * 7 // 3 for i in range(k, k + batch.n)]
        k += batch.n
    assert k == 10**6
    assert schedule.last == (10**6 - 1) * step * 7 // 3


@pytest.mark.parametrize("rate", [Fraction(3), Fraction(1, 3)])  # four days, a month
def test_a_million_packets_at_a_rate_do_not_drift(rate):
    schedule = pace.packets_per_second(rate)
    batch = at_times(*[0] * 50_000, size=0)
    for _ in range(19):
        due(schedule, batch)
    assert due(schedule, batch) == [int(k * SECOND / rate) for k in range(950_000, 10**6)]


def test_no_rate_is_no_schedule():
    assert pace.parse_rate("0") is pace.parse_rate("0.0") is None
    assert pace.parse_rate("0.5") == Fraction(1, 2)


def test_far_times_stop_at_the_largest():
    assert due(pace.recorded(Fraction(1, 10**9)), at_times(0, 4 * 10**18)) == [0, 2**63 - 1]


@pytest.mark.parametrize("bad", ["", "0", "-1", "x", "1/0", "nan", "inf", "1e30", "1/1e30", "1e999999999"])
def test_speeds_that_are_none(bad):
    with pytest.raises(ValueError, match=f"'{bad}'"):
        pace.parse_speed(bad)


def test_the_room_for_due_times_is_checked():
    batch = at_times(1, 2, 3)
    schedule = pace.recorded(Fraction(1))
    for start, stop, room in ((0, 4, 4), (2, 1, 3), (0, 3, 2)):
        with pytest.raises(ValueError, match="records"):
            schedule.due(batch, start, stop, array.array("q", bytes(8 * room)))
