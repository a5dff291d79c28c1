"""pcapreplay as a whole: what goes in comes out, at which time, by which device; with real receivers.

Functions whose names begin with `in_` run in a private network (see namespace.py), in a process of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import captures
import livenet
import namespace
import pytest

from pcaptools.core import _sides
from pcaptools.core.times import parse_time
from pcaptools.engines import pace, replay_choice
from pcaptools.engines.aliases import translated
from pcaptools.engines.merge import Merge, Source
from pcaptools.files.pool import Pool, PooledFile

COMMAND = [sys.executable, str(Path(__file__).parent.parent / "bin" / "pcapreplay")]
SECOND = 10**9
START = 1_700_000_000
NANO = 0xA1B23C4D


def replay(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    options = {"stdin": subprocess.DEVNULL, **options}
    return subprocess.run(command, capture_output=True, text=True, timeout=30, **options)


def frame(number: int, size: int = 60) -> bytes:
    """An Ethernet frame of an experimental type that tells its number."""
    return captures.ether(struct.pack("!I", number) + bytes(size - 18), 0x88B5)


def number_of(data: bytes) -> int:
    return int(struct.unpack("!I", data[14:18])[0])


def write(path: Path, times: list[int], first: int = 0) -> Path:
    """A nanosecond capture of numbered frames at these times, ns after START."""
    records = [(START + t // SECOND, t % SECOND, frame(first + k), 60) for k, t in enumerate(times)]
    path.write_bytes(captures.pcap(records, magic=NANO))
    return path


def played(path: Path) -> list[tuple[int, int]]:
    """(number, time in ns after START) of every packet of a capture."""
    return [(number_of(data), t - START * SECOND) for t, _, _, data in captures.packets(path.read_bytes())]


def recorded(tmp_path: Path, *arguments: object) -> list[tuple[int, int]]:
    """What `-w` says would be sent."""
    result = replay("-q", "-w", tmp_path / "sent.pcap", *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    return played(tmp_path / "sent.pcap")


# ---- sources -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1000 captures that overlap in time, 5 packets each, of which some are at equal times."""
    directory = tmp_path_factory.mktemp("dataset")
    chance = random.Random(8)
    for k in range(1000):
        times = sorted(chance.randrange(20_000) * 10_000 for _ in range(5))
        write(directory / f"part{k:04}.pcap", times, k * 5)
    return directory


def test_a_dataset_comes_in_mergecap_s_order(dataset: Path, tmp_path: Path) -> None:
    files = sorted(dataset.iterdir())
    merged = tmp_path / "merged.pcap"
    limit = ["prlimit", "--nofile=4096"] if shutil.which("prlimit") else []
    mergecap: list = [*limit, captures.tool("mergecap"), "-F", "nsecpcap", "-w", merged, *files]
    subprocess.run(mergecap, check=True, timeout=60)
    ours = recorded(tmp_path, "-t", "-R", dataset)
    assert sorted(t for _, t in ours) == [t for _, t in ours]
    assert sorted(ours) == sorted(played(merged))
    assert [t for _, t in ours] == [t for _, t in played(merged)]
    # at equal times: mergecap's heap has no order, ours is that of the files
    assert ours == sorted(ours, key=lambda packet: (packet[1], packet[0]))


def test_256_descriptors_are_enough(dataset: Path, tmp_path: Path) -> None:
    command: list = ["bash", "-c", 'ulimit -n 256; exec "$@"', "-", *COMMAND, "-q", "-t", "-w", tmp_path / "sent.pcap"]
    result = subprocess.run([*command, "-R", dataset], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(played(tmp_path / "sent.pcap")) == 5000


def test_files_are_opened_when_their_time_has_come() -> None:
    opened: list[int] = []

    def source(k: int) -> Source:
        batch = captures.one_batch([(START + k, 0, frame(k), 60), (START + k + 1, 500, frame(100 + k), 60)])

        def open_it() -> list:
            opened.append(k)
            return [batch]

        return Source((START + k) * SECOND, open_it)

    order = []
    for batch in Merge([source(k) for k in range(50)]):
        order += [number_of(bytes(packet)) for packet in batch.packets()]
    assert opened == list(range(50))
    assert order[:5] == [0, 1, 100, 2, 101]


def test_parked_files_go_on_where_they_were(tmp_path: Path) -> None:
    pool = Pool(2)
    contents = [os.urandom(1000) for _ in range(9)]
    files = []
    for k, content in enumerate(contents):
        (tmp_path / str(k)).write_bytes(content)
        files.append(PooledFile(str(tmp_path / str(k)), pool))
    read = [b""] * 9
    for _ in range(100):
        for k, file in enumerate(files):
            buffer = bytearray(10)
            read[k] += bytes(buffer[: file.readinto(buffer)])
    assert read == contents


def test_a_map_is_played(tmp_path: Path, dataset: Path) -> None:
    """GopherCap's map, relative to itself; only the files that are listed."""
    for k in (0, 1):
        shutil.copy(sorted(dataset.iterdir())[k], tmp_path / f"{k}.pcap")
    entries = [{"path": f"{k}.pcap", "packets": 5, "beginning": "2023-11-14T22:13:20Z"} for k in (0, 1)]
    (tmp_path / "meta.json").write_text(json.dumps({"files": entries}))
    (tmp_path / "out").mkdir()
    sent = recorded(tmp_path / "out", "-t", "--dataset", tmp_path / "meta.json")
    assert sorted(number for number, _ in sent) == list(range(10))
    assert "not a map" in replay("-w", "-", "--dataset", __file__).stderr


def test_sequence_plays_one_after_the_other(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", [5, 105], 0), write(tmp_path / "b", [7, 8], 10)
    assert recorded(tmp_path, "--sequence", first, second) == [(0, 5), (1, 105), (10, 105), (11, 106)]
    assert [number for number, _ in recorded(tmp_path, first, second)] == [0, 10, 11, 1]


def test_the_cut_by_time_is_by_packet(tmp_path: Path) -> None:
    path = write(tmp_path / "a", [k * SECOND for k in range(10)])
    assert recorded(tmp_path, "--from", START + 3, "--to", "2023-11-14T22:13:26Z", path) == [
        (3, 3 * SECOND), (4, 4 * SECOND), (5, 5 * SECOND),
    ]  # fmt: skip
    assert len(recorded(tmp_path, "--time-to", f"{START}.5", path)) == 1


def test_points_in_time() -> None:
    assert parse_time("1700000000.000000001") == START * SECOND + 1
    assert parse_time("2023-11-14 22:13:20") == parse_time("2023-11-14T23:13:20+01:00") == START * SECOND
    assert parse_time("2023-11-14T22:13:20.123456789Z") == START * SECOND + 123_456_789
    for bad in ("", "noon", "2023-11-14T22", "1e9"):
        with pytest.raises(ValueError):
            parse_time(bad)


def test_a_window_sorts(tmp_path: Path) -> None:
    chance = random.Random(3)
    times = [k * 1000 + chance.randrange(20_000) for k in range(3000)]
    path = write(tmp_path / "a", times)
    assert recorded(tmp_path, "-t", "--reorder", "20us", path) == sorted(enumerate(times), key=lambda p: (p[1], p[0]))


def test_numbers_choose_packets(tmp_path: Path) -> None:
    path = write(tmp_path / "a", list(range(30)))
    chosen = [number + 1 for number, _ in recorded(tmp_path, "-t", "--include", "7,11,20-23,28-", path)]
    assert chosen == [7, 11, 20, 21, 22, 23, 28, 29, 30]
    rest = [number + 1 for number, _ in recorded(tmp_path, "-t", "--exclude", "3-,2", path)]
    assert rest == [1]
    assert replay_choice.complement([(2, 3), (3, 5)]) == [(1, 1), (6, replay_choice.ENDLESS)]
    for bad in ("", "0", "5-3", "x", "1,,2", "-4"):
        with pytest.raises(ValueError):
            replay_choice.parse_numbers(bad)


def test_loops(tmp_path: Path) -> None:
    path = write(tmp_path / "a", [0, 100])
    assert recorded(tmp_path, "-l", 3, "--loopdelay-ns", 7, path) == [
        (0, 0), (1, 100), (0, 107), (1, 207), (0, 214), (1, 314),
    ]  # fmt: skip
    assert len(recorded(tmp_path, "-l", 5, "-K", path)) == 10
    assert len(recorded(tmp_path, "-l", 0, "-L", 7, path)) == 7
    with path.open("rb") as file:
        result = replay("-q", "-K", "-l", 3, "-w", tmp_path / "sent.pcap", stdin=file)
    assert (result.returncode, len(played(tmp_path / "sent.pcap"))) == (0, 6)


def test_each_loop_has_its_own_addresses_with_right_checksums(tmp_path: Path) -> None:
    source, target = bytes([0, 0, 0, 1]), bytes([255, 255, 255, 254])  # both wrap around
    packets = [captures.ether(captures.ipv4(captures.udp(b"x" * k, source=source, target=target), 17, source, target))
               for k in range(3)]  # fmt: skip
    (tmp_path / "in.pcap").write_bytes(captures.pcap(packets))
    for options in ([], ["-K"]):
        result = replay("-q", "-t", "-w", tmp_path / "out.pcap", "-l", 5, "--unique-ip", *options, tmp_path / "in.pcap")
        assert result.returncode == 0
        rows = captures.tshark(tmp_path / "out.pcap", ("ip.src", "ip.dst", "ip.checksum.status", "udp.checksum.status"))
        pairs = [(row["ip.src"][0], row["ip.dst"][0]) for row in rows]
        assert len(pairs) == 15 and len(set(pairs)) == 5
        assert {row[f][0] for row in rows for f in ("ip.checksum.status", "udp.checksum.status")} == {"1"}


def test_a_capture_without_packets(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(captures.pcap([]))
    assert recorded(tmp_path, tmp_path / "empty") == []
    assert (tmp_path / "sent.pcap").read_bytes() == captures.pcap([], magic=NANO)


def test_snapped_packets_are_padded_or_skipped(tmp_path: Path) -> None:
    records = [(START, 0, frame(0), 60), (START, 1, frame(1), 90)]
    path = tmp_path / "in.pcap"
    path.write_bytes(captures.pcap(records, magic=NANO))
    for how, sizes in (("send", [60, 60]), ("pad", [60, 90]), ("skip", [60])):
        recorded(tmp_path, "--cut", how, path)
        assert [len(d) for *_, d in captures.packets((tmp_path / "sent.pcap").read_bytes())] == sizes
    recorded(tmp_path, "--pktlen", "--skip-mtu", 89, path)
    assert len(played(tmp_path / "sent.pcap")) == 2  # padding comes behind: what was captured counts


def test_faults_are_seeded(tmp_path: Path) -> None:
    path = write(tmp_path / "a", [k * 1000 for k in range(20_000)])
    faults = ["--loss", "10%", "--dup", "0.05", "--reorder-rate", "0.02"]
    first, again = recorded(tmp_path, *faults, path), recorded(tmp_path, *faults, path)
    assert first == again != recorded(tmp_path, *faults, "--seed", 2, path)
    numbers = [number for number, _ in first]
    lost, doubled = 20_000 - len(set(numbers)), len(numbers) - len(set(numbers))
    swapped = sum(b < a for a, b in pairwise(numbers))
    assert 1800 < lost < 2200 and 800 < doubled < 1000 and 250 < swapped < 450
    delayed = recorded(tmp_path, "--jitter", "exponential:3us", path)
    assert [number for number, _ in delayed] == list(range(20_000))
    assert 2_000 < sum(t - k * 1000 for k, t in delayed) / 20_000 < 6_000


# ---- pace --------------------------------------------------------------------------------------------------------


def test_scale_to(tmp_path: Path) -> None:
    path = write(tmp_path / "a", [0, 1 * SECOND, 7 * SECOND])
    assert [t for _, t in recorded(tmp_path, "--scale-to", "21", path)] == [0, 3 * SECOND, 21 * SECOND]
    assert [t for _, t in recorded(tmp_path, "--time-scale-duration", "700ms", path)] == [0, 10**8, 7 * 10**8]


def test_long_silences_are_shortened_and_all_behind_them_move(tmp_path: Path) -> None:
    """tcpreplay's --maxsleep delays every packet behind one long gap."""
    path = write(tmp_path / "a", [0, 10**6, 10 * SECOND, 10 * SECOND + 10**6, 10 * SECOND + 2 * 10**6])
    assert [t // 10**6 for _, t in recorded(tmp_path, "--maxsleep", "20", path)] == [0, 1, 21, 22, 23]


def test_groups_of_packets(tmp_path: Path) -> None:
    path = write(tmp_path / "a", [0] * 7)
    assert [t for _, t in recorded(tmp_path, "-p", 1000, "--pps-multi", 3, path)] == [
        0, 0, 0, 3 * 10**6, 3 * 10**6, 3 * 10**6, 6 * 10**6,
    ]  # fmt: skip


def test_a_time_far_in_the_future_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a", [0, 45 * 3600 * SECOND])
    result = replay("-w", tmp_path / "out", path)
    assert "a silence of 45 hours" in result.stderr and result.returncode == 0


def test_bursts_stay_bursts_over_a_million_packets() -> None:
    """tcpreplay delays each of several packets with one time again; 2.3 GB or 30 min make its rates overflow."""
    times = [(START + k // 5 // 10, k // 5 % 10 * 10**8, b"", 0) for k in range(50_000)]
    batch = captures.one_batch(times, magic=NANO)
    for schedule, expected in (
        (pace.recorded(pace.parse_speed("1")), [k // 5 * 10**8 for k in range(50_000)]),
        (pace.packets_per_second(pace.parse_speed("999983")), [k * SECOND // 999_983 for k in range(50_000)]),
    ):
        due = memoryview(bytearray(8 * 50_000)).cast("q")
        for loop in range(20):
            assert schedule.due(batch, 0, batch.n, due) == batch.n
            if loop == 0:
                assert due.tolist() == expected
            schedule.rewind()
        assert schedule.packets == 10**6
    assert due[-1] == (10**6 - 1) * SECOND // 999_983


def test_a_rate_does_not_overflow_after_gigabytes() -> None:
    batch = captures.one_batch([frame(0, 1500)] * 500)
    schedule = pace.megabits_per_second(pace.parse_speed("1000"))
    due = memoryview(bytearray(8 * 500)).cast("q")
    for _ in range(10_000):
        schedule.due(batch, 0, 500, due)
    assert due[499] == (5_000_000 - 1) * 1500 * 8  # 7.5 GB at a ns a bit


def test_durations() -> None:
    for text, value in (("2", 2 * SECOND), ("0.5", SECOND // 2), ("1m30s", 90 * SECOND), ("20ms", 2 * 10**7)):
        assert pace.parse_duration(text) == value
    for bad in ("", "x", "1 s", "-1", "5x", "1s2", "1e3"):
        with pytest.raises(ValueError):
            pace.parse_duration(bad)


def test_other_tools_names() -> None:
    assert translated(["-T", "nano", "--maxsleep=5", "-W", "x", "--", "--auto=a"]) == [
        "--no-spin", "--max-gap=0.005", "x", "--", "--auto=a",
    ]  # fmt: skip
    assert translated(["--out-bpf", "tcp", "--loop-infinite", "-i", "x"]) == ["--filter=tcp", "--loop=0", "-i", "x"]


# ---- onto devices ------------------------------------------------------------------------------------------------


def in_two_devices(path: str) -> None:
    with namespace.Receiver("pt1") as one, namespace.Receiver("pt0") as two:
        result = replay("-i", "pt0", "-I", "pt1", "--split", "port", "-t", path)
        assert (result.returncode, result.stderr) == (0, ""), result.stderr
        sides = [[frame.data[36:38] for frame in receiver.frames(3, 1)] for receiver in (one, two)]
        assert sides == [[b"\0\x35"] * 3, [b"\xc0\0"] * 2]
        assert result.stdout.count("Statistics for network device: pt") == 2
    result = replay("-i", "pt0", "-I", "pt1", "-2", "-t", "--json", path, path)
    report = json.loads(result.stdout)
    assert [(one["device"], one["packets"]) for one in report["interfaces"]] == [("pt0", 5), ("pt1", 5)]
    assert [one["packets"] for one in report["files"]] == [5, 5]


def test_two_devices(tmp_path: Path) -> None:
    there, back = captures.udp(b"?"), captures.udp(b"!", 53, 49152)
    packets = [captures.ether(captures.ipv4(data, 17)) for data in (there, back, there, back, there)]
    (tmp_path / "in.pcap").write_bytes(captures.pcap(packets))
    namespace.call(in_two_devices, str(tmp_path / "in.pcap"))


def in_threads(path: str) -> None:
    with namespace.Receiver("pt1") as receiver:
        result = replay("-i", "pt0", "--threads", 2, "-t", "-q", path)
        assert (result.returncode, result.stderr) == (0, "")
        flows: dict[bytes, list[int]] = {}
        for one in receiver.frames(5000):
            flows.setdefault(one.data[34:36], []).append(int.from_bytes(one.data[42:46], "big"))
    assert sum(map(len, flows.values())) == 5000 and len(flows) == 50
    assert all(numbers == sorted(numbers) for numbers in flows.values())


def test_threads_keep_the_order_of_each_flow(tmp_path: Path) -> None:
    chance = random.Random(5)
    packets = [captures.ether(captures.ipv4(captures.udp(struct.pack("!I", k), 1024 + chance.randrange(50)), 17))
               for k in range(5000)]  # fmt: skip
    (tmp_path / "in.pcap").write_bytes(captures.pcap(packets))
    namespace.call(in_threads, str(tmp_path / "in.pcap"))


def in_late(path: str) -> None:
    """A packet in the past of a schedule: sent at once and counted, or skipped."""
    for how, sent, status in (("send", 200, 0), ("skip", None, 1)):
        process = subprocess.Popen(
            [*COMMAND, "-i", "pt0", "--json", "--late", how, "--late-after", "10ms", path],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        time.sleep(1)
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(process.pid, signal.SIGCONT)
        report = json.loads(process.communicate(timeout=20)[0])
        assert report["schedule_error_ns"]["max"] < 0.3 * SECOND  # stopping moved the rest
        assert process.returncode in (0, status)
        assert report["packets"] >= (sent or 100)


def test_stopping_moves_the_schedule(tmp_path: Path) -> None:
    namespace.call(in_late, str(write(tmp_path / "a", [k * 10**7 for k in range(200)])))


def in_signals(path: str) -> list[object]:
    process = subprocess.Popen(
        [*COMMAND, "-i", "pt0", "--stats", "0.2", "--json", path],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(0.7)
    process.send_signal(signal.SIGUSR1)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    return [process.returncode, json.loads(out)["packets"], err]


def test_signals(tmp_path: Path) -> None:
    status, packets, said = namespace.call(in_signals, str(write(tmp_path / "a", [0, 1000, 3600 * SECOND])))
    assert (status, packets) == (130, 2)
    assert len(re.findall(r"pcapreplay: 2 packets, .* at 2023-11-14 22:13:20 UTC, late by", said)) >= 3


def in_beyond_the_mtu(path: str) -> None:
    with namespace.Receiver("pt1") as receiver:
        result = replay("-i", "pt0", "--mtu-trunc", "--json", path)
        report = json.loads(result.stdout)
        assert (result.returncode, report["packets"], report["cut_to_mtu"]) == (0, 2, 1)
        assert [len(one.data) for one in receiver.frames(2)] == [60, 1014]


def test_packets_beyond_the_mtu_can_be_cut(tmp_path: Path) -> None:
    (tmp_path / "in.pcap").write_bytes(captures.pcap([frame(0), frame(1, 1200)]))
    namespace.call(in_beyond_the_mtu, str(tmp_path / "in.pcap"), mtu=1000)


def in_to_host(path: str) -> None:
    with namespace.Receiver("pt1") as receiver:
        result = replay("-i", "pt0", "--to-host", "02:00:00:00:00:09", "-t", path)
        assert (result.returncode, result.stderr) == (0, "")
        four, six = (one.data for one in receiver.frames(2))
        assert (four[:6], four[12:15]) == (bytes.fromhex("020000000009"), b"\x08\x00\x45")
        assert (six[:6], six[12:15]) == (bytes.fromhex("020000000009"), b"\x86\xdd\x60")


def test_raw_ip_gets_an_ethernet_header(tmp_path: Path) -> None:
    packets = [captures.ipv4(captures.udp(b"4"), 17), captures.ipv6(b"", 59)]
    (tmp_path / "in.pcap").write_bytes(captures.pcap(packets, 101))
    namespace.call(in_to_host, str(tmp_path / "in.pcap"))


def in_next_hop(path: str) -> None:
    """Hosts with addresses, behind a gateway, with a name, ours, silent, unknown."""
    with livenet.Host() as host:
        [mac] = re.findall(r"link/ether (\S+)", host.run(["ip", "link", "show", "pt1"]))
        livenet.ip(f"route add 198.51.100.0/24 via {livenet.HOST4}\nroute add 2001:db8::/32 via {livenet.HOST6}\n")
        for there in (livenet.HOST4, livenet.HOST6, f"[{livenet.HOST6}]", "198.51.100.7", "2001:db8::7", mac.upper()):
            result = replay("-i", "pt0", "--to-host", there, "-t", "--json", path)
            assert (result.returncode, result.stderr) == (0, ""), (there, result.stderr)
        for there, said in (
            (livenet.NEAR4, f"--to-host: {livenet.NEAR4} is an address of this machine: --tap sends into it"),
            (livenet.FREE6, f"pt0: {livenet.FREE6} does not answer: give its MAC address to --to-host"),
        ):
            result = replay("-i", "pt0", "--to-host", there, path)
            assert (result.returncode, result.stderr) == (2, f"pcapreplay: {said}\n"), result.stderr
        result = replay("-i", "pt0", "--to-host", "no.such.host.invalid", path)
        assert result.stderr.startswith(
            "pcapreplay: --to-host: 'no.such.host.invalid' is no MAC address, and no host: "
        )


def test_the_next_hop_of_a_host(tmp_path: Path) -> None:
    (tmp_path / "in.pcap").write_bytes(captures.pcap([captures.ipv4(captures.udp(b"4"), 17)], 101))
    namespace.call(in_next_hop, str(tmp_path / "in.pcap"), timeout=60)


# ---- into services -----------------------------------------------------------------------------------------------

COLLECTOR, EXPORTER = bytes([10, 7, 7, 2]), bytes([10, 7, 7, 1])


def exported(path: str, version: str) -> list[bytes]:
    """The datagrams that softflowd exports for a capture."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as collector:
        collector.bind(("127.0.0.1", 9995))
        collector.settimeout(1)
        subprocess.run(
            [captures.tool("softflowd"), "-r", path, "-n", "127.0.0.1:9995", "-v", version, "-d"],
            capture_output=True, timeout=20, check=False,
        )  # fmt: skip
        datagrams = []
        with contextlib.suppress(TimeoutError):
            while True:
                datagrams.append(collector.recv(65535))
    return datagrams


def write_export(path: str, datagrams: list[bytes]) -> None:
    records = []
    for k, data in enumerate(datagrams):
        packet = captures.ipv4(captures.udp(data, 40_000, 9995, EXPORTER, COLLECTOR), 17, EXPORTER, COLLECTOR)
        whole = captures.ether(packet)
        records.append((START, k * 5000, whole, len(whole)))
    Path(path).write_bytes(captures.pcap(records))


def collected(directory: str, host: str, *arguments: str) -> tuple[list[int], str]:
    """(flows, packets, bytes) that nfcapd stored while pcapreplay sent, and what that said."""
    os.makedirs(directory)
    nfcapd = subprocess.Popen(
        [captures.tool("nfcapd"), "-w", directory, "-b", host, "-p", "9995"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        time.sleep(0.7)
        result = replay("-q", *arguments)
        time.sleep(0.7)
    finally:
        nfcapd.terminate()
        told = nfcapd.communicate(timeout=10)[0]
    found = re.findall(r"Flows: (\d+), Packets: (\d+), Bytes: (\d+)", told)
    return [sum(int(row[k]) for row in found) for k in range(3)], f"{result.stderr}{result.returncode}"


def in_collectors(source: str, version: str, directory: str) -> list[tuple[list[int], str]]:
    export = f"{directory}/export.pcap"
    write_export(export, exported(source, version))
    results = [collected(f"{directory}/udp", "127.0.0.1", "--udp", "127.0.0.1:9995", export)]
    subprocess.run(["ip", "link", "set", "pt1", "address", captures.MACS[:6].hex(":")], check=True)
    subprocess.run(["ip", "address", "add", "10.7.7.2/24", "dev", "pt1"], check=True)
    results.append(collected(f"{directory}/veth", "10.7.7.2", "-i", "pt0", export))
    subprocess.run(["ip", "address", "del", "10.7.7.2/24", "dev", "pt1"], check=True)
    if os.access("/dev/net/tun", os.W_OK):
        os.system("ip link add keep type ifb 2>/dev/null; ip link set keep up; ip address add 10.7.7.2/32 dev keep")
        tap = ("--tap", "in0", "--tap-address", "10.7.7.2/24")
        results.append(collected(f"{directory}/tap", "10.7.7.2", *tap, export))
    return results


@pytest.mark.parametrize("version", ["9", "10"])
def test_collectors_store_what_was_exported(tmp_path: Path, version: str) -> None:
    if not captures.index():
        pytest.skip(captures.MISSING)
    for program in ("softflowd", "nfcapd"):
        captures.tool(program)
    source = tmp_path / "in.pcap"
    source.write_bytes(captures.content("mixed/joy__firefox58.pcap"))
    results = namespace.call(in_collectors, str(source), version, str(tmp_path), timeout=60)
    fields = ("cflow.flowset_id", "cflow.octets", "cflow.packets")
    rows = captures.tshark(tmp_path / "export.pcap", fields, "-d", "udp.port==9995,cflow")
    octets = [int(value) for row in rows for value in row["cflow.octets"]]
    packets = [int(value) for row in rows for value in row["cflow.packets"]]
    assert len(octets) > 20
    assert results == [[[len(octets), sum(packets), sum(octets)], "0"]] * len(results)


def in_tap(path: str) -> None:
    if not os.access("/dev/net/tun", os.W_OK):
        return
    result = replay("-q", "--tap", "in0", path)
    assert result.returncode == 1
    assert "20 of the first 21 packets are for IP addresses that this machine does not have" in result.stderr
    assert "1 of the first 21 packets are for other MAC addresses than 02:00:00:00:00:02" in result.stderr
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("0.0.0.0", 9995))
        service.settimeout(2)
        result = replay("--json", "--tap", "in0", "--tap-address", "10.7.7.2/24", path)
        assert json.loads(result.stdout)["packets"] == 21
        assert [service.recv(10) for _ in range(20)] == [b"x"] * 20
    result = replay("-q", "--tap", "pt0", path)
    assert (result.returncode, result.stderr) == (2, "pcapreplay: pt0: there is a device of that name already\n")


def test_what_keeps_packets_from_services_is_told(tmp_path: Path) -> None:
    write_export(str(tmp_path / "in.pcap"), [b"x"] * 20)
    stranger = captures.ether(captures.ipv4(b"", 59, target=bytes([127, 0, 0, 1])), macs=bytes([2] * 12))
    with open(tmp_path / "in.pcap", "ab") as file:
        file.write(struct.pack("<IIII", START + 1, 0, len(stranger), len(stranger)) + stranger)
    namespace.call(in_tap, str(tmp_path / "in.pcap"))


def in_nobody(path: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    result = replay("-q", "--udp", "127.0.0.1:9995", path)
    assert result.returncode == 1
    assert re.search(r"127.0.0.1:9995: \d+ datagrams were refused: nobody listens there", result.stderr)


def test_a_collector_that_is_not_there(tmp_path: Path) -> None:
    write_export(str(tmp_path / "in.pcap"), [b"x"] * 20)
    namespace.call(in_nobody, str(tmp_path / "in.pcap"))


# ---- on time -----------------------------------------------------------------------------------------------------


def in_time(directory: str, count: int) -> list[int]:
    with namespace.Receiver("pt1", capacity=count + 100, size=100) as receiver:
        result = replay("-i", "pt0", "-R", directory, "-q")
        assert (result.returncode, result.stderr) == (0, "")
        return [one.time for one in receiver.frames(count)]


def test_a_dataset_arrives_on_time(dataset: Path) -> None:
    due = sorted(t for path in dataset.iterdir() for _, t in played(path))
    arrived = namespace.call(in_time, str(dataset), len(due))
    late = sorted(there - here for there, here in zip(arrived, due, strict=True))
    late = [value - late[0] for value in late]
    assert late[len(late) // 2] < 20_000_000 and late[-1] < 150_000_000  # a shared machine


def test_the_native_tables_take_hostile_lengths() -> None:
    batch = captures.one_batch([b"", frame(0)[:13], captures.ether(b"\x45"), captures.ether(captures.ipv4(b"", 6))])
    hosts = _sides.Hosts()
    hosts.note(batch)
    hosts.lanes(batch, 1)
    _sides.lanes_by_hash(batch, 3)
    assert hosts.sender_lanes(batch, 4) == (4, 0, 0)
    flows = _sides.FlowSet()
    flows.add(captures.one_batch([captures.ether(captures.ipv4(captures.tcp(), 6))] * 3))
    assert flows.counts == (1, 3, 0)
