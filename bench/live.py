"""The measurements that talk to a web server: pcapliveplay beside tcpliveplay. Part of network.py, in its namespace.

nginx runs in a second namespace behind a veth pair. What is played is a connection that was recorded from it.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measure import Failed, Run, alternate, command, medians, program, run

NEAR, FAR = "10.9.0.1", "10.9.0.2"
FAR_MAC = "02:00:00:00:00:02"
FLOWS, AT_ONCE = 10_000, 1000
PATIENCE = 10  # s

REQUEST = b"GET / HTTP/1.0\r\nHost: bench\r\n\r\n"
ANSWER = b"any\n"

SERVER = """\
user root; daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;
events {{ worker_connections 8000; }}
http {{
    access_log {root}/access.log; default_type text/plain;
    client_body_temp_path {root}/c; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u;
    scgi_temp_path {root}/s;
    server {{ listen 80 backlog=4096; root {root}; }}
}}
"""

QUIET = "table ip bench { chain out { type filter hook output priority 0; tcp flags rst drop; }; }"
"""tcpliveplay leaves it to its user to keep the kernel from resetting what it does not know."""


class Server:
    """nginx at FAR, port 80, in a namespace of its own. Everything ends with it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Server:
        holder = self._start([program("unshare"), "-n", program("sleep"), "3600"])
        here = os.readlink("/proc/self/ns/net")
        _until(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != here)
        inside = [program("nsenter"), f"--net=/proc/{holder.pid}/ns/net"]
        ip = program("ip")
        run([ip, "link", "add", "near", "type", "veth", "peer", "name", "far", "address", FAR_MAC])
        run([ip, "link", "set", "far", "netns", str(holder.pid)])
        run([ip, "addr", "add", f"{NEAR}/24", "dev", "near"])
        run([ip, "link", "set", "near", "up"])
        run([*inside, ip, "addr", "add", f"{FAR}/24", "dev", "far"])
        run([*inside, ip, "link", "set", "far", "up"])
        (self.root / "index.html").write_bytes(b"hello\n" * 50)
        (self.root / "nginx.conf").write_text(SERVER.format(root=self.root))
        self._start([*inside, program("nginx"), "-p", str(self.root), "-c", str(self.root / "nginx.conf")])
        _until(_answers)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            process.kill()
            process.wait()

    def _start(self, argv: list[str]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._started.append(process)
        return process

    @property
    def answered(self) -> int:
        """Requests so far."""
        return (self.root / "access.log").read_bytes().count(b"\n")


def live(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows: one connection, and the rate of many."""
    root = Path(args.capture) / "live"
    root.mkdir()
    ours = command(args.bin, "pcapliveplay")
    with Server(root) as server:
        capture = _record(root, args.bin)
        one = medians(alternate({"ours": lambda: run([*ours, "-q", "near", capture, FAR])}, args.rounds), _wall)["ours"]
        yield _baseline(server, capture, one)
        many = [*ours, "-q", "--repeat", str(FLOWS), "--concurrency", str(AT_ONCE), "near", capture, FAR]
        runs = alternate({"ours": lambda: run(many)}, args.rounds)
        rate, cost = FLOWS / medians(runs, _wall)["ours"], medians(runs, _user)["ours"] / FLOWS
        yield _row(f"{AT_ONCE} connections at once", "1/s", rate, "", None, ">= 2000") | {"absolute": True}
        yield _row("user CPU of a connection", "ms", cost * 1e3, "", None, "")


def _record(root: Path, binaries: str) -> str:
    """The capture of a connection to the server: a made one, played with any answer, as it went."""
    made, real = str(root / "made.pcap"), str(root / "real.pcap")
    for name, data in (("request", REQUEST), ("answer", ANSWER)):
        (root / name).write_bytes(data)
    ends = ["--client", NEAR, "--server", f"{FAR}:80", "--tcp-options", "mss,sack,wscale,timestamps"]
    texts = ["--request", str(root / "request"), "--response", str(root / "answer")]
    run([*command(binaries, "pcapgen"), "conversation", *ends, *texts, "-w", made])
    run([*command(binaries, "pcapliveplay"), "-q", "--expect", "any", "-w", real, "near", made, FAR])
    return real


def _baseline(server: Server, capture: str, ours: float) -> dict[str, Any]:
    """tcpliveplay on the same connection: its time when the server answered it, else that it did not get there."""
    tcpliveplay = [program("tcpliveplay"), "near", capture, FAR, FAR_MAC, "random"]
    run([program("nft"), QUIET])
    before, start, name = server.answered, time.perf_counter(), "tcpliveplay"
    process = subprocess.Popen(tcpliveplay, cwd=server.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall: float | None = None
    try:
        process.wait(PATIENCE)
        wall = time.perf_counter() - start
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if server.answered == before:
        name, wall = f"tcpliveplay: no connection in {PATIENCE} s", None
    run([program("nft"), "delete table ip bench"])
    return _row("one connection", "s", ours, name, wall, "")


def _wall(one: Run) -> float:
    return one.wall


def _user(one: Run) -> float:
    return one.user


def _row(what: str, unit: str, ours: float, peer_name: str, peer: float | None, bound: str) -> dict[str, Any]:
    return {"what": what, "unit": unit, "ours": ours, "peer_name": peer_name, "peer": peer, "bound": bound}


def _answers() -> bool:
    try:
        socket.create_connection((FAR, 80), 1).close()
    except OSError:
        return False
    return True


def _until(condition: Any) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        if time.monotonic() > deadline:
            raise Failed("the server does not answer")
        time.sleep(0.01)
