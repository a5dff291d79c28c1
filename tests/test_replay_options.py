"""pcapreplay's options: tcpreplay's own tests of sending, files of options, what is said of packets that are not sent.

Functions whose names begin with `in_` run in a private network (see namespace.py).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import captures
import namespace
import pytest
from test_replay import COMMAND, SECOND, frame, number_of, replay, write

from pcaptools.engines.aliases import preset, translated

UPSTREAM = captures.ROOT.parent / "reference" / "tcpreplay-tests"

# The tests of tcpreplay's suite that send, where only the exit status counts there; and how many packets must arrive.
SENDING = {
    "replay_basic": ("-t test.pcap", 179),
    "replay_nano_timer": ("--loop=2 --loopdelay-ns=125000000 -t test.pcap", 358),
    "replay_cache": ("-c test.cidr -I pt0 -t test.pcap", 179),
    "replay_pps": ("-p 2500 test.pcap", 179),
    "replay_rate": ("-M 25 test.pcap", 179),
    "replay_multi": ("-x 25 test.pcap", 179),
    "replay_pps_multi": ("-p 10000 --pps-multi=5 test.pcap", 179),
    "replay_top": ("-t test.pcap", 179),
    "replay_precache": ("-K -t test.pcap", 179),
    "replay_stats": ("--stats=1 -t test.pcap", 179),
    "replay_dualfile": ("-I pt0 --dualfile -t test.pcap test.pcap", 358),
    "replay_maxsleep": ("--maxsleep=20 -x 10 test.pcap", 179),
    "xdp": ("--xdp --xdp-batch-size=64 -t test.pcap", 179),
    "everything else": ("-T nano -q -P -W --no-flow-stats --flow-expiry=30 --pktlen -M 0 test.pcap", 179),
}


def in_upstream_s_tests(directory: str) -> dict[str, list]:
    os.chdir(directory)
    found = {}
    for name, (words, packets) in SENDING.items():
        with namespace.Receiver("pt1") as receiver:
            result = replay("-i", "pt0", *words.split())
            arrived = len(receiver.frames(packets))
        found[name] = [result.returncode, re.sub("pcapreplay: 179 packets.*\n", "", result.stderr), arrived]
    result = replay("--load-opts=config", "test.pcap")
    found["replay_config"] = [result.returncode, result.stderr, 179 if "Actual: 179 packets" in result.stdout else 0]
    return found


def test_tcpreplay_s_own_tests() -> None:
    if not UPSTREAM.exists():
        pytest.skip("tcpreplay's test files are not beside the captures (PCAPTOOLS_CAPTURES/../reference)")
    expected = {name: [0, "", packets] for name, (_, packets) in SENDING.items()} | {"replay_config": [0, "", 179]}
    assert namespace.call(in_upstream_s_tests, str(UPSTREAM), timeout=60) == expected


def test_options_from_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a", [0, 10 * SECOND, 20 * SECOND])
    (tmp_path / "options").write_text(
        f"# ours\nwrite {tmp_path}/out\n[TCPREWRITE]\nseed 5\n"
        '[TCPREPLAY]\nmaxsleep 1000\nloop 2\ninclude "1-2"\nquiet\n'
    )
    result = replay("--load-opts", tmp_path / "options", "-l", "3", path)
    assert (result.returncode, result.stderr, result.stdout) == (0, "", "")
    times = [t // SECOND for t, *_ in captures.packets((tmp_path / "out").read_bytes())]
    assert [t - times[0] for t in times] == [0, 1, 1, 2, 2, 3]
    (tmp_path / "options").write_text("netmap\n")
    assert replay(f"--load-opts={tmp_path}/options", path).stderr.startswith(
        "pcapreplay: --load-opts: unknown option netmap"
    )
    assert "No such file" in replay("--load-opts", tmp_path / "none").stderr
    assert replay("--load-opts").returncode == 2


def test_presets_give_way_to_arguments() -> None:
    usage = "  -l, --loop=N  x\n  -t, --topspeed  y\n  --max-gap=TIME  z\n"
    text = "loop 3\ntopspeed\nmaxsleep 5\n"
    assert preset(text, usage, []) == ["--loop=3", "--topspeed", "--max-gap=0.005"]
    assert preset(text, usage, ["-l2", "--max-gap", "1"]) == ["--topspeed"]
    assert translated(["--xdp"]) == ["--backend=xdp"]


def sent(tmp_path: Path, *arguments: object) -> list[tuple[int, int]]:
    """(number, time in ns after the first one) of what `-w` says would be sent."""
    result = replay("-q", "-w", tmp_path / "sent", *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    found = captures.packets((tmp_path / "sent").read_bytes())
    return [(number_of(data), t - found[0][0]) for t, _, _, data in found]


def test_speed_holds_for_every_capture(tmp_path: Path) -> None:
    """The second capture of several hung, or was sent at another speed (appneta/tcpreplay#472, #418)."""
    first, second = write(tmp_path / "a", [0, 10, 30], 0), write(tmp_path / "b", [1000, 1020, 1080], 10)
    expected = [(0, 0), (1, 5), (2, 15), (10, 15), (11, 25), (12, 55)]
    assert sent(tmp_path, "--sequence", "-x", "2", first, second) == expected
    assert sent(tmp_path, "-x", "2", "-l", 2, first) == [(0, 0), (1, 5), (2, 15), (0, 15), (1, 20), (2, 30)]
    at_rate = [(number, k * 10**6) for k, (number, _) in enumerate(expected)]
    assert sent(tmp_path, "--sequence", "-p", "1000", first, second) == at_rate


def test_two_captures_with_chosen_packets(tmp_path: Path) -> None:
    """`--dualfile --include` hung, `--dualfile --exclude` was ignored."""
    first, second = write(tmp_path / "a", [0, 10, 30], 0), write(tmp_path / "b", [5, 20, 40], 10)
    assert [number for number, _ in sent(tmp_path, "-2", "--include", "1,3", first, second)] == [0, 10, 2, 12]
    assert [number for number, _ in sent(tmp_path, "-2", "--exclude", "1,3", first, second)] == [1, 11]


def in_loops(path: str) -> dict:
    return json.loads(replay("-i", "pt0", "-t", "-l", "7", "--json", path).stdout)


def test_loops_count_each_packet_once(tmp_path: Path) -> None:
    """Counters were squared (appneta/tcpreplay#749)."""
    report = namespace.call(in_loops, str(write(tmp_path / "a", [0, 1, 2, 3, 4])))
    assert (report["packets"], report["bytes"]) == (35, 35 * 60)


def in_flows(path: str) -> list[dict]:
    """Reports of replays that end early, and what arrives."""
    reports = []
    for more in (
        ["-L", "10", "-p", "500"],
        ["-L", "10", "-p", "500", "-K", "-l", "2"],
        ["--duration", "0.5", "-p", "40"],
        ["-t", "--flows"],
    ):
        reports.append(json.loads(replay("-i", "pt0", "--json", *more, path).stdout))
    process = subprocess.Popen(
        [*COMMAND, "-i", "pt0", "--json", "-p", "20", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    reports.append(json.loads(process.communicate(timeout=10)[0]))
    return reports


def test_flows_are_those_of_packets_sent(tmp_path: Path) -> None:
    packets = [captures.ether(captures.ipv4(captures.udp(b"", 1024 + k), 17)) for k in range(300)]
    (tmp_path / "in.pcap").write_bytes(captures.pcap(packets))
    limited, preloaded, short, whole, interrupted = namespace.call(in_flows, str(tmp_path / "in.pcap"))
    assert limited["flows"] == {"flows": 10, "flow_packets": 10, "non_flow_packets": 0}
    assert (preloaded["packets"], whole["flows"]["flows"]) == (10, 300)
    assert short["flows"]["flow_packets"] == short["packets"] < 30
    assert 0 < interrupted["packets"] < 100
    assert abs(interrupted["flows"]["flows"] - interrupted["packets"]) <= 1  # one may have been under way


def in_not_sent(directory: str) -> list[list]:
    os.chdir(directory)
    found = []
    for words in ("-q long", "--json long", "raw", "-q nothing", "nothing", "-q --mtu-trunc long"):
        result = replay("-i", "pt0", *words.split())
        found.append([result.returncode, result.stderr, bool(result.stdout)])
    return found


def test_what_is_not_sent_is_said(tmp_path: Path) -> None:
    """On standard error too, where there is no report to read."""
    (tmp_path / "long").write_bytes(captures.pcap([frame(0), frame(1, 3000)]))
    (tmp_path / "raw").write_bytes(captures.pcap([captures.ipv4(b"", 59)], 101))
    (tmp_path / "nothing").write_text("this is not a capture at all, whatever its name says")
    hint = "pcapreplay: pcaprewrite --dlt=enet in front gives packets another link layer, --to-host raw IP packets\n"
    assert namespace.call(in_not_sent, str(tmp_path)) == [
        [1, "pcapreplay: 1 packets not sent: beyond the MTU\n", False],
        [1, "pcapreplay: 1 packets not sent: beyond the MTU\n", True],
        [1, hint, True],
        [2, "pcapreplay: nothing: not a pcap or pcapng capture\n", False],
        [2, "pcapreplay: nothing: not a pcap or pcapng capture\n", False],
        [0, "", False],
    ]


def in_stops(path: str, how: str, *options: str) -> list[float]:
    """How long a process stood still, and by how much what it sent behind that came later; ms."""
    with namespace.Receiver("pt1") as receiver:
        process = subprocess.Popen([*COMMAND, "-i", "pt0", "-q", *options, path])
        frames = receiver.frames(30, 10)
        process.send_signal(getattr(signal, how))
        while state(process.pid) != "T":
            time.sleep(0.0002)
        stopped = time.monotonic_ns()
        time.sleep(0.3)
        process.send_signal(signal.SIGCONT)
        lasted = time.monotonic_ns() - stopped
        frames += receiver.frames(170, 10)
        assert process.wait(10) == 0 and len(frames) == 200
    late = [one.time - number_of(one.data) * 10**7 for one in frames]
    return [lasted / 1e6, (min(late[-50:]) - min(late[:30])) / 1e6]


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize(("how", "options"), [("SIGSTOP", ""), ("SIGTSTP", ""), ("SIGTSTP", "--threads=2")])
def test_a_stop_moves_the_schedule_by_its_length(tmp_path: Path, how: str, options: str) -> None:
    path = write(tmp_path / "a", [k * 10**7 for k in range(200)])
    lasted, moved = namespace.call(in_stops, str(path), how, *options.split())
    assert -1 < moved - lasted < 50  # a machine that does other things, too; alone it is 2 ms


def in_waiting_threads(path: str) -> str:
    process = subprocess.Popen(
        [*COMMAND, "-i", "pt0", "--threads", "2", "--stats", "0.1", path],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr
    said = process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    return said


def test_threads_that_wait_do_not_keep_the_command_from_telling(tmp_path: Path) -> None:
    assert "1 packets" in namespace.call(in_waiting_threads, str(write(tmp_path / "a", [0, 3600 * SECOND])))


def in_tshark(path: str, directory: str) -> None:
    """Real traffic through a device, as Wireshark's dumpcap at the other end records it."""
    count = len(captures.packets(Path(path).read_bytes()))
    command = [captures.tool("dumpcap"), "-q", "-i", "pt1", "-s", "0", "-B", "64", "-P", "-w", f"{directory}/got.pcap"]
    with subprocess.Popen([*command, "-c", str(count)], stderr=subprocess.PIPE, text=True) as dumpcap:
        assert dumpcap.stderr
        while not dumpcap.stderr.readline().startswith("File:"):
            pass
        result = replay("-i", "pt0", "-p", "20000", "-q", path)
        assert (result.returncode, result.stderr) == (0, "")
        dumpcap.communicate(timeout=20)


def test_tshark_finds_the_same_flows_on_the_wire(tmp_path: Path) -> None:
    if not captures.index():
        pytest.skip(captures.MISSING)
    source = tmp_path / "in.pcap"
    source.write_bytes(captures.content("mixed/joy__firefox58.pcap"))
    namespace.call(in_tshark, str(source), str(tmp_path), mtu=9000, timeout=60)
    for table in ("conv,tcp", "io,phs"):
        there, here = (flows(path, table) for path in (tmp_path / "got.pcap", source))
        assert there == here and len(here) > 2


def flows(path: Path, table: str) -> list[str]:
    """The rows of a table of tshark, without times and durations."""
    command = [captures.tool("tshark"), "-n", "-q", "-r", path, "-z", table]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    rows = [line for line in said.splitlines() if "<->" in line or "frames:" in line]
    return sorted(re.sub(r"\s+[\d.,]+\s+[\d.,]+$", "", row) if "<->" in row else row for row in rows)
