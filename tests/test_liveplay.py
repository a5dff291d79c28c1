"""pcapliveplay against real servers: nginx and servers of our own, behind a veth pair, over real kernels' TCP.

Functions whose names begin with `in_` run in a private network (see namespace.py and livenet.py).
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import captures
import livenet
import namespace
import pytest
import simulation
from livenet import FREE4, FREE6, HOST4, HOST6, NEAR4, Host, liveplay, rulesets

from pcaptools.engines.script import Collector, Part
from pcaptools.files.capture import open_capture

LIVE = captures.ROOT / "live-tcp"
NAMES = sorted(path.name for path in LIVE.iterdir()) if LIVE.is_dir() else []

needs_servers = pytest.mark.skipif(
    bool(livenet.have("nginx", "nft", "nsenter")), reason="nginx, nft or nsenter is missing"
)
needs_captures = pytest.mark.skipif(not NAMES, reason=captures.MISSING)


def part_of(path: Path) -> Part:
    collector = Collector()
    for batch in open_capture(str(path)):
        collector.feed(batch, path.name)
    return collector.scripts()[0].part("client")


def server_lines(path: Path) -> list[tuple[str, str]]:
    """What `livenet.replay` says and waits for."""
    part, lines, said = part_of(path), [], 0
    for turn in part.turns:
        due = max((send.end for send in part.sends if send.after <= turn.start), default=0)
        if due > said:
            lines.append(("C", part.mine[said:due].hex()))
            said = due
        lines.append(("S", part.theirs[turn.start : turn.end].hex()))
    return [*lines, ("C", part.mine[said:].hex())]


def made(lines: list, name: str = "made.pcap", **options: Any) -> str:
    """A capture file of one connection."""
    path = livenet.scratch() / name
    path.write_bytes(captures.pcap(simulation.frames(lines, **options), magic=0xA1B23C4D))
    return str(path)


def get(path: str, more: str = "", version: str = "1.1") -> bytes:
    return f"GET {path} HTTP/{version}\r\nHost: example\r\n{more}\r\n".encode()


def json_of(*arguments: str, status: int = 0, **options: Any) -> dict[str, Any]:
    result = liveplay(*arguments, "--json", **options)
    assert result.returncode == status, result.stderr + result.stdout
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def at_once(function: Callable[..., None], *arguments: Iterable) -> None:
    """Call it with each of these in several threads: most of the time of a play is waiting."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(function, *arguments))


# --- the recorded servers, with other segments


def in_recorded(names: list[str]) -> None:
    with Host() as host:

        def replayed(port: int, name: str) -> None:
            lines = server_lines(LIVE / name)
            mood = "whole" if max(len(text) for _, text in lines) > 100_000 else ("cut", "tiny")[port % 2]
            host.serve("replay", lines, port, mood, port=port)
            target = (HOST4, HOST6)[port // 2 % 2]
            found = json_of(
                "pt0", str(LIVE / name), target, "--dst-port", str(port), "--expect", "exact", "--timeout", "9"
            )
            flow = found["flows"][0]
            assert (flow["tries"], flow["turn"], flow["note"]) == (1, max(flow["turns"], 1), ""), (name, flow)
            assert flow["bytes_sent"] == len(part_of(LIVE / name).mine) and flow["rtt_ns"] > 0

        at_once(replayed, itertools.count(9000), names)
        assert rulesets() == ""


@needs_servers
@needs_captures
@pytest.mark.parametrize("third", range(3))
def test_every_real_connection_is_replayed(third: int) -> None:
    namespace.call(in_recorded, NAMES[third::3], timeout=60)


def in_recorded_lossy(names: list[str]) -> None:
    with Host() as host:
        host.lose(10)

        def replayed(port: int, name: str) -> None:
            host.serve("replay", server_lines(LIVE / name), port, "cut", port=port)
            more = ["--dst-port", str(port), "--expect", "exact", "--source-ip", f"10.9.0.{port - 8900}"]
            json_of("pt0", str(LIVE / name), HOST4, *more)

        at_once(replayed, itertools.count(9000), names)


@needs_servers
@needs_captures
def test_real_connections_survive_loss() -> None:
    names = [name for name in NAMES if re.search("smtp-data|http_get.pcap|ssh", name)]
    namespace.call(in_recorded_lossy, names, timeout=60)


COMPLETE = [
    str(captures.ROOT / row["path"])
    for row in captures.index()
    if "tcp-complete" in row["exercises"] and not row["path"].startswith("perf/")
]


def in_both_ends(paths: list[str]) -> dict[str, Any]:
    """Every connection of these captures, both sides ours."""
    directory = livenet.scratch()
    for path in paths:
        os.symlink(path, directory / path.replace("/", "_"))
    with Host() as host:
        ours = [sys.executable, str(livenet.COMMAND), "--role", "server", "--expect", "exact", "--source-ip", FREE4]
        server = host.start([*ours, "pt1", str(directory)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert server.stdout and server.stdout.readline().startswith(b"Own resets")
        found = json_of("pt0", str(directory), FREE4, "--expect", "exact", status=1)
        server.wait(5)
    return found


@needs_servers
@pytest.mark.skipif(not COMPLETE, reason=captures.MISSING)
def test_all_real_connections_between_both_ends() -> None:
    found = namespace.call(in_both_ends, COMPLETE, timeout=60)
    assert found["replayed"] == found["scheduled"] > 600
    assert {(flow["tries"], flow["note"], flow["retransmissions"]) for flow in found["flows"]} == {(1, "", 0)}
    reasons = ("not in the capture", "cut by the snap length", "no SYN")
    assert all(any(reason in one["problem"] for reason in reasons) for one in found["refused"])


# --- nginx


def in_nginx() -> None:
    big = bytes(range(256)) * 40_000
    with Host() as host:
        host.nginx({"index.html": b"hello\n" * 50, "big": big})
        cases = [
            ([("C", get("/"))], []),
            ([("C", get("/nothing-here"))], ["--expect-regex", r"1:^HTTP/1\.1 404"]),
            ([("C", b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n" + b"p" * 30000)], []),
            ([("C", get("/")), ("S", b"x"), ("C", get("/nothing")), ("S", b"x"), ("C", get("/"))], []),
            ([("C", get("/") * 3)], []),
            ([("C", get("/big", "Connection: close\r\n"))], []),
        ]

        def answered(number: int, target: str) -> None:
            lines, more = cases[number]
            capture = made([*lines, ("S", b"any answer")], ends="SC" if number == 5 else "CS")
            result = json_of("pt0", capture, target, *more, "--expect", "any")
            assert result["replayed"] == 1, result
            assert number != 5 or result["flows"][0]["bytes_received"] > len(big)

        at_once(answered, *zip(*itertools.product(range(len(cases)), (HOST4, HOST6)), strict=True))
        result = json_of(
            "pt0", made([("C", get("/nothing")), ("S", b"x")]), HOST4, "--expect-regex", "200 OK", status=1
        )
        assert result["flows"][0]["cause"] == "mismatch"


@needs_servers
def test_nginx_answers() -> None:
    namespace.call(in_nginx, timeout=60)


def in_many(flows: int, lossy: bool) -> None:
    with Host() as host:
        host.nginx({"index.html": b"hello\n" * 50})
        if lossy:
            host.lose(10)
        capture = made([("C", get("/", version="1.0")), ("S", b"answer")], ends="SC")
        more = ["--repeat", str(flows), "--concurrency", str(flows), "--expect", "any"]
        found = json_of("pt0", capture, HOST4, *more)
        assert found["replayed"] == found["scheduled"] == flows
        assert lossy or len({flow["port"] for flow in found["flows"]}) == flows
        assert (sum(flow["retransmissions"] for flow in found["flows"]) > 50) is lossy


@needs_servers
def test_thousand_at_once() -> None:
    namespace.call(in_many, 1000, False, timeout=120)


@needs_servers
def test_five_hundred_survive_loss() -> None:
    namespace.call(in_many, 500, True, timeout=120)


# --- other servers, other ways


def in_smtp() -> None:
    answers = {"EHLO": "250 hello\r\n", "QUIT": "221 bye\r\n", "DATA": "354 go\r\n", "": "250 ok\r\n"}
    said = [("S", b"220 mail\r\n"), ("C", b"EHLO me\r\n"), ("S", b"250 hello\r\n"), ("C", b"DATA\r\n")]
    said += [("S", b"354 go\r\n"), ("C", b"text\r\n" * 500 + b".\r\n"), ("S", b"250 ok\r\n")]
    said += [("C", b"QUIT\r\n"), ("S", b"221 bye\r\n")]
    with Host() as host:
        host.serve("talk", "220 mail\r\n", answers, port=25)
        for more in (
            [],
            ["--source-ip", FREE4],
            ["--pace", "recorded"],
            ["--strict"],
            ["auto", "recorded"],
            ["auto", "50000"],
            ["--backend", "pypcap"],
            ["--backend", "pypcap", "--source-ip", FREE4],
        ):
            found = json_of("pt0", made(said, sport=25, ends="SC"), HOST4, *more, "--expect", "exact")
            assert found["replayed"] == 1 and (
                "free" in found["silence"] or "nftables" in found["silence"] or FREE4 in found["silence"]
            )
            if more[:1] == ["auto"]:
                assert found["flows"][0]["port"] == (40000 if more[1] == "recorded" else 50000)
        for more in ([], ["--backend", "pypcap"]):
            capture = made(said, sport=25, ends="SC")
            six = json_of("pt0", capture, HOST6, "--source-ip", FREE6, "--expect", "exact", *more)
            assert six["replayed"] == 1
        kernel = json_of("--socket", made(said, sport=25, ends="SC"), HOST4, "--expect", "exact")
        assert kernel["replayed"] == 1
        other = [*said[:4], ("S", b"354 Go\r\n"), *said[5:]]
        for way in (["pt0"], ["--socket"]):
            found = json_of(
                *way, made(other, sport=25, ends="SC"), HOST4, "--expect", "exact", "--retries", "2", status=1
            )
            flow = found["flows"][0]
            assert (flow["cause"], flow["tries"]) == ("mismatch", 2)
            assert {key: flow["mismatch"][key] for key in ("turn", "offset")} == {"turn": 3, "offset": 4}
            assert (flow["mismatch"]["expected"], flow["mismatch"]["got"]) == (b"Go\r\n".hex(), b"go\r\n".hex())


@needs_servers
def test_a_mail_server_answers_and_a_changed_answer_is_found() -> None:
    namespace.call(in_smtp, timeout=60)


def in_slow_reader() -> None:
    with Host() as host:
        host.serve("slow_reader", 300_000, port=99)
        said = [("C", bytes(300_000)), ("S", b"got 300000\r\n")]
        found = json_of("pt0", made(said, sport=99, ends="SC"), HOST4, "--expect", "exact")
        assert found["replayed"] == 1


@needs_servers
def test_a_closed_window_is_respected() -> None:
    namespace.call(in_slow_reader)


def in_causes() -> None:
    capture = made([("C", b"ask"), ("S", b"answer")])
    with Host() as host:
        host.serve("replay", [["C", b"ask".hex()], ["S", b"ans".hex()]], 1, "whole", port=81)
        for way in (["pt0"], ["--socket"]):
            assert "refused" in liveplay(*way, capture, HOST4).stderr
            early = liveplay(*way, capture, HOST4, "--dst-port", "81", "--retries", "1")
            assert "closed early" in early.stderr and "3 of 6 bytes" in early.stderr and early.returncode == 1
        nobody = liveplay("pt0", capture, "10.9.0.200")
        assert (nobody.returncode, nobody.stderr) == (2, "pcapliveplay: unreachable: 10.9.0.200 does not answer ARP\n")
        own = liveplay("pt0", capture, NEAR4)
        assert own.returncode == 2 and "address of this machine" in own.stderr
        livenet.ip("link add bare type veth peer name bare1\nlink set bare up\nlink set bare1 up\n")
        bare = liveplay("bare", "--role", "server", capture)
        assert (bare.returncode, bare.stderr) == (
            2, "pcapliveplay: bare: has no IPv4 address: give it one or use --source-ip\n"
        )  # fmt: skip
        rules = "add table ip t; add chain ip t c { type filter hook input priority 0; }; "
        rules += "add rule ip t c tcp dport 82 reject; add rule ip t c tcp dport 83 drop"
        rules += "; add rule ip t c tcp dport 85 reject with icmp type admin-prohibited"
        subprocess.run([*host.inside(), "nft", rules], check=True)
        assert "unreachable: ICMP says: port" in liveplay("pt0", capture, HOST4, "--dst-port", "82").stderr
        firewall = liveplay("pt0", capture, HOST4, "--dst-port", "85")
        assert "unreachable: ICMP says: prohibited by a firewall (type 3, code 13)" in firewall.stderr
        silent = liveplay("pt0", capture, HOST4, "--dst-port", "83", "--tcp-retries", "0", "--retries", "1")
        assert "no answer to packet 1 after 1 try" in silent.stderr and silent.returncode == 1
        assert rulesets() == ""


@needs_servers
def test_every_failure_names_its_cause() -> None:
    namespace.call(in_causes, timeout=60)


def in_killed() -> None:
    with Host() as host:
        host.serve("replay", [["C", b"ask".hex()]], 1, "whole", port=84)
        capture = made([("C", b"ask"), ("S", b"answer"), ("C", b"?")], sport=84)
        recording = str(Path(capture).with_name("live.pcap"))
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            command = [sys.executable, str(livenet.COMMAND), "pt0", capture, HOST4, "-w", recording]
            host.serve("slow_reader", 100, port=100 + number)
            command += ["--dst-port", str(100 + number)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            until = time.monotonic() + 10
            while "tcp sport" not in rulesets() and time.monotonic() < until:
                time.sleep(0.02)
            scope = rf"ip saddr {NEAR4} ip daddr {HOST4} tcp sport \d+ tcp dport {100 + number} tcp flags rst"
            assert re.search(scope, rulesets()), rulesets()
            time.sleep(0.1)
            process.send_signal(number)
            process.communicate(timeout=5)
            time.sleep(0.1)
            assert rulesets() == ""
            assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
            if number != signal.SIGKILL:
                packets = list(captures.packets(Path(recording).read_bytes()))
                assert len(packets) > 3
                os.unlink(recording)


@needs_servers
def test_no_rule_is_left_behind() -> None:
    namespace.call(in_killed, timeout=40)


def in_server_role(options: list[str]) -> None:
    first = made([("C", b"one\n"), ("S", b"first" * 1000), ("C", b"more\n"), ("S", b"end")], sport=86)
    second = made([("C", b"two\n"), ("S", b"second")], name="zwei.pcap", sport=86)
    os.rename(second, Path(first).with_name("zwei.pcap"))
    directory, socket_way = str(Path(first).parent), "--socket" in options
    with Host() as host:
        command = [sys.executable, str(livenet.COMMAND), "--role", "server", "--json", "--expect", "exact", *options]
        command += [directory] if socket_way else ["pt0", directory]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        client = (
            "import socket, sys, time\n"
            "def connect():\n"
            "    for _ in range(100):\n"
            "        try:\n"
            "            return socket.create_connection((sys.argv[1], 86), 5)\n"
            "        except OSError:\n"  # it is not there yet
            "            time.sleep(0.1)\n"
            "for asked in ((b'two\\n',), (b'one\\n', b'more\\n')):\n"
            "    with connect() as s:\n"
            "        for line in asked:\n"
            "            s.sendall(line)\n"
            "            data = b''\n"
            "            while not data.endswith((b'second', b'first', b'end')) or len(data) in range(7, 5000):\n"
            "                data += s.recv(9999)\n"
            "            print(len(data))\n"
        )
        said = host.run([sys.executable, "-c", client, FREE4 if "--source-ip" in options else NEAR4])
        out, err = server.communicate(timeout=10)
        assert said.split() == ["6", "5000", "3"], said
        assert json.loads(out)["replayed"] == 2, out + err


@needs_servers
@pytest.mark.parametrize(
    "options", [[], ["--source-ip", FREE4], ["--socket"]], ids=["firewall", "own address", "socket"]
)
def test_the_server_is_played(options: list[str]) -> None:
    namespace.call(in_server_role, options, timeout=40)


def unreachable(host: Host) -> int:
    """How often the host was told that it could not reach something."""
    table = [line.split() for line in host.run(["cat", "/proc/net/snmp"]).splitlines() if line.startswith("Icmp:")]
    six = dict(line.split() for line in host.run(["cat", "/proc/net/snmp6"]).splitlines())
    return int(table[1][table[0].index("InDestUnreachs")]) + int(six["Icmp6InDestUnreachs"])


def in_udp() -> None:
    lines = [("C", b"ask"), ("S", b"answer")]
    packets = [captures.ether(captures.ipv4(captures.udp(data, *((4000, 53) if who == "C" else (53, 4000)),
               *((captures.SOURCE4, captures.TARGET4) if who == "C" else (captures.TARGET4, captures.SOURCE4))), 17,
               *((captures.SOURCE4, captures.TARGET4) if who == "C" else (captures.TARGET4, captures.SOURCE4))))
               for who, data in lines]  # fmt: skip
    path = livenet.scratch() / "udp.pcap"
    path.write_bytes(captures.pcap(packets))
    server = "import socket; s = socket.socket(socket.AF_INET6, 2); s.bind(('', {port})); print('ready', flush=True)\n"
    server += "while True: data, where = s.recvfrom(999); s.sendto({answer} if data == b'ask' else b'?', where)"
    with Host() as host:
        for port, answer, status in ((53, "b'answer'", 0), (54, "b'answes'", 1)):
            command = [sys.executable, "-c", server.format(answer=answer, port=port)]
            process = host.start(command, stdout=subprocess.PIPE)
            assert process.stdout and process.stdout.readline()
            more = ["--proto", "udp", "--expect", "exact", "--dst-port", str(port)]
            for way in (["pt0"], ["--socket"]):
                found = json_of(*way, str(path), HOST4, *more, status=status)
                assert found["scheduled"] == 1 and (status == 0 or found["flows"][0]["mismatch"]["offset"] == 5)
        assert "nftables" in json_of("pt0", str(path), HOST6, "--proto", "udp")["silence"]
        assert unreachable(host) == 0, "our kernel answered what was for us"


@needs_servers
def test_datagrams_are_exchanged() -> None:
    namespace.call(in_udp, timeout=40)


ELSEWHERE = """\
import socket, sys
sys.platform = "darwin"
from pcaptools.commands.pcapliveplay import main
sys.exit(main(sys.argv[1:]))
"""


def in_another_system() -> None:
    with Host() as host:
        host.serve("replay", [["C", b"ask".hex()], ["S", b"answer".hex()]], 1, "whole", port=80)
        capture = made([("C", b"ask"), ("S", b"answer")], ends="SC")
        for target, more, said in (
            (HOST4, ["--source-ip", FREE4], '"replayed": 1'),
            (HOST6, ["--source-ip", FREE6], '"replayed": 1'),
            (HOST4, [], "routes are read on Linux only: use --source-ip or --socket"),
        ):
            command = [sys.executable, "-c", ELSEWHERE, "pt0", capture, target, "--json", *more]
            result = subprocess.run(command, capture_output=True, text=True, timeout=20)
            assert said in result.stdout + result.stderr, result


@needs_servers
def test_without_what_only_linux_has() -> None:
    """A system that calls itself another: no packet sockets, no nftables, no routes."""
    namespace.call(in_another_system, timeout=40)


# --- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eth0"], "expected are: <interface> <capture> <dst-ip>"),
        (["--socket", "in.pcap", "nowhere"], "<dst-ip>: 'nowhere' does not appear to be an IPv4 or IPv6 address"),
        (["eth0", "in.pcap", "10.0.0.1", "xx"], "<dst-mac>: 'xx' is neither a MAC address nor auto"),
        (["eth0", "in.pcap", "10.0.0.1", "auto", "0"], "<src-port>: '0' is not a port"),
        (["--socket", "--strict", "in.pcap", "10.0.0.1"], "--strict: with --socket the kernel sees to segments"),
        (["--expect", "most", "--socket", "in.pcap", "10.0.0.1"], "--expect: 'most' is not exact, length or any"),
        (["--expect-regex", "(", "--socket", "in.pcap", "10.0.0.1"], "--expect-regex: '(': missing )"),
        (["--ignore-range", "9-1", "--socket", "in.pcap", "10.0.0.1"], "--ignore-range: '9-1' ends before it begins"),
        (["--socket", "no-such.pcap", "10.0.0.1"], "no-such.pcap: No such file or directory"),
    ],
)
def test_usage_errors(arguments: list[str], message: str) -> None:
    result = liveplay(*arguments)
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr


def test_a_flow_without_syn_needs_leave(tmp_path: Path) -> None:
    packets = simulation.frames([("C", b"ask"), ("S", b"answer")])[2:]
    path = tmp_path / "nosyn.pcap"
    path.write_bytes(captures.pcap(packets, magic=0xA1B23C4D))
    refused = liveplay("--socket", str(path), "127.0.0.1", "--dst-port", "9")
    assert refused.returncode == 2 and "no SYN in the capture: --synthesize-handshake" in refused.stderr


def in_vlan() -> None:
    capture = made([("C", b"ask"), ("S", b"answer" * 3000)])
    with Host() as host:
        plain: list[str] = []
        through_pcap = ["--backend", "pypcap"]
        for ours, theirs, how in (
            ("10.7.0.1", "10.7.0.2", plain), ("fd00:7::1", "fd00:7::2", plain), ("10.7.0.1", "10.7.0.2", through_pcap)
        ):  # fmt: skip
            far = ["--vlan", "7", "--source-ip", theirs, "--expect", "exact", *how, "pt1", capture]
            command = [sys.executable, str(livenet.COMMAND), "--role", "server", *far]
            server = host.start(command, stdout=subprocess.PIPE)
            assert server.stdout and server.stdout.readline().startswith(b"Own resets")
            found = json_of("pt0", capture, theirs, "--vlan", "7", "--source-ip", ours, "--expect", "exact", *how)
            assert (found["replayed"], server.wait(5)) == (1, 0)


@needs_servers
def test_both_ends_play_each_other_in_a_vlan() -> None:
    namespace.call(in_vlan)
