"""Many captures as one: sorting in a window, one pcapng, parts, periods; batches in order of time."""

import io
import random

import captures
import pytest

from pcaptools.core import _merge
from pcaptools.core.batch import Batch
from pcaptools.core.pipeline import Account
from pcaptools.core.times import SECOND, parse_span, parse_time
from pcaptools.engines.convert import ToPcap
from pcaptools.engines.join import Reorder, ToInterfaces
from pcaptools.engines.parts import MOST, Parts, Rule, parse_rule
from pcaptools.engines.period import Period

NS = 0xA1B23C4D


def account() -> Account:
    return Account(pytest.fail, pytest.fail)


def nspcap(times, size=lambda k: 60) -> bytes:
    """A packet for each time, in ns, which holds its number."""
    packets = [
        (time // SECOND, time % SECOND, b"%09d" % k + bytes(size(k)), 9 + size(k)) for k, time in enumerate(times)
    ]
    return captures.pcap(packets, magic=NS)


def written(transforms, *inputs: bytes) -> bytes:
    out = io.BytesIO()

    def push(batch, rest):
        if not rest:
            out.write(batch.view())
            return
        for passed in rest[0].feed(batch):
            push(passed, rest[1:])

    for data in inputs:
        for batch in captures.batches(data, 40_000):
            push(batch, transforms)
    for at, transform in enumerate(transforms):
        for batch in transform.finish():
            push(batch, transforms[at + 1 :])
    return out.getvalue()


@pytest.mark.parametrize("disorder", [0, 10, 1000, 10**9])
def test_a_window_sorts(disorder):
    chance = random.Random(disorder)
    times = [SECOND + k * 20 + chance.randint(0, disorder) // 20 * 20 for k in range(20_000)]
    data = nspcap(times, lambda k: k % 200)
    reorder = Reorder(disorder)
    out = captures.packets(written([ToPcap(account(), nanoseconds=True), reorder], data))
    wanted = sorted(captures.packets(data), key=lambda packet: packet[0])
    assert out == wanted
    assert reorder.late == 0


def test_what_comes_too_late_is_counted_and_not_lost():
    chance = random.Random(1)
    times = [SECOND + k * 20 + chance.choice([0, 10**9]) for k in range(30_000)]
    data = nspcap(times, lambda k: 300)
    reorder = Reorder(1000)
    out = captures.packets(written([ToPcap(account(), nanoseconds=True), reorder], data))
    assert sorted(out) == sorted(captures.packets(data))
    latest = late = 0
    for time, *_ in out:
        late += time < latest
        latest = max(time, latest)
    assert reorder.late == late > 0


@pytest.mark.parametrize("largest", [100, 200_000])
def test_batches_merge_in_order(largest):
    chance = random.Random(largest)
    data = [
        nspcap(sorted(chance.randint(1, 300) for _ in range(40)), lambda k: chance.choice([10, largest]))
        for _ in range(7)
    ]
    sources = [captures.batches(one, 5_000) for one in data]
    merger, out, found = _merge.Merger(), Batch(1000), []
    with pytest.raises(ValueError, match="at least one record"):
        merger.add(0, Batch())
    for order, source in enumerate(sources):
        merger.add(order, next(batch for batch in source if batch.n))
    while (verdict := merger.move(out)) != _merge.EMPTY:
        if verdict == _merge.DRY:
            following = next((batch for batch in sources[merger.dry] if batch.n), None)
            if following:
                merger.add(merger.dry, following)
        else:
            found += [(record.time, bytes(packet)) for record, packet in zip(out.records(), out.packets(), strict=True)]
            out.clear()
    found += [(record.time, bytes(packet)) for record, packet in zip(out.records(), out.packets(), strict=True)]
    wanted = sorted(
        (time, order, k, packet)
        for order, one in enumerate(data)
        for k, (time, _, _, packet) in enumerate(captures.packets(one))
    )
    assert found == [(time, packet) for time, _, _, packet in wanted]
    assert merger.late == 0


def test_one_pcapng_of_several():
    ether, raw = nspcap([5, 6]), captures.pcap([b"raw"], 101)
    out = written([ToInterfaces()], ether, raw, ether)
    assert [linktype for _, _, linktype, _ in captures.packets(out)] == [1, 1, 101, 1, 1]
    numbered = iter([*range(10)])
    out = written([ToInterfaces(lambda k: (next(numbered), "näme"))], ether, raw)
    assert len(captures.packets(out)) == 3
    assert out.count("näme".encode()) == 2
    assert captures.packets(written([ToInterfaces()])) == []


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("1700000000.000000001", 1_700_000_000 * SECOND + 1),
        ("1970-01-02", 86_400 * SECOND),
        ("1970-01-01T00:00:00.25Z", SECOND // 4),
        ("1970-01-01 01:00:01+01:00", SECOND),
        ("1969-12-31T23:59:59.999999999-0000", -1),
    ],
)
def test_times(text, ns):
    assert parse_time(text) == ns


@pytest.mark.parametrize("text", ["", "x", "-1", "1970-13-01", "1970-01-01T25:00", "1.0000000001", "1e3", "nan"])
def test_no_times(text):
    with pytest.raises(ValueError, match="'"):
        parse_time(text)
    with pytest.raises(ValueError, match="not a number of seconds"):
        parse_span(text)


def test_periods():
    data = nspcap([5 * SECOND, 6 * SECOND, 7 * SECOND])
    far = parse_time("2999-01-01")
    for first, last, count in [(6 * SECOND, None, 2), (None, 6 * SECOND, 1), (far, None, 0), (None, far, 3), (5, 6, 0)]:
        books = account()
        out = written([Period(first, last, books), ToPcap(books, nanoseconds=True)], data)
        assert len(captures.packets(out)) == count
        assert books.dropped == ({"outside the period": 3 - count} if count < 3 else {})


def test_rules():
    assert parse_rule("time:60") == Rule(60 * SECOND, MOST)
    assert parse_rule("size:2k") == Rule(0, 2048)
    assert parse_rule("size:9G") == Rule(0, MOST)
    for text in ["", "time", "time:", "time:0", "time:5k", "size:-1", "size:1x", "size:1.5M", "day:1"]:
        with pytest.raises(ValueError, match="is neither"):
            parse_rule(text)


def test_a_capture_without_packets_is_one_part():
    parts = Parts(Rule(0, 100))
    header = captures.pcap([])
    for batch in ToPcap(account(), nanoseconds=False).finish():
        list(parts.feed(batch))
    made = [bytes(part) for batch in captures.batches(header) for part in parts.feed(batch)]
    assert made == []
    assert [bytes(part) for part in parts.finish()] == [header]
