"""A host to talk to: a network namespace behind pt1, with addresses of its own and a kernel that answers.

To be used in a private network (namespace.py), by functions that `namespace.call` calls::

    with Host() as host:
        host.start([sys.executable, ...])         # a program over there
        result = liveplay("pt0", "in.pcap", HOST4)
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

NEAR4, HOST4, FREE4 = "10.9.0.1", "10.9.0.2", "10.9.0.77"
NEAR6, HOST6, FREE6 = "fd00:9::1", "fd00:9::2", "fd00:9::77"

COMMAND = Path(__file__).resolve().parent.parent / "bin" / "pcapliveplay"

_NEAR = f"""\
link set pt0 arp on up
addr add {NEAR4}/24 dev pt0
addr add {NEAR6}/64 dev pt0 nodad
"""
_FAR = f"""\
link set lo up
link set pt1 arp on up
addr add {HOST4}/24 dev pt1
addr add {HOST6}/64 dev pt1 nodad
"""


class Host:
    """The far end. Everything started there ends with it."""

    def __enter__(self) -> Host:
        self._holder = subprocess.Popen(["unshare", "-n", "sleep", "120"])
        self._started: list[subprocess.Popen] = []
        here = os.readlink("/proc/self/ns/net")
        until = time.monotonic() + 5
        while os.readlink(f"/proc/{self._holder.pid}/ns/net") == here and time.monotonic() < until:
            time.sleep(0.005)
        ip(f"link set pt1 netns {self._holder.pid}\n{_NEAR}")
        ip(_FAR, self.inside())
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self._started, self._holder):
            process.kill()
            process.wait(5)

    def inside(self) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net"]

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen:
        """Start a program over there."""
        process = subprocess.Popen([*self.inside(), *command], **options)
        self._started.append(process)
        return process

    def run(self, command: Sequence[str]) -> str:
        """Run one and return what it says."""
        return subprocess.run([*self.inside(), *command], check=True, capture_output=True, text=True, timeout=20).stdout

    def lose(self, percent: int) -> None:
        """Drop so many packets in both directions, at random."""
        rules = "table inet loss {\n" + "".join(
            f"chain {hook} {{ type filter hook {hook} priority 0; numgen random mod 100 < {percent} drop; }}\n"
            for hook in ("input", "output")
        )
        subprocess.run([*self.inside(), "nft", "-f", "-"], input=rules + "}\n", text=True, check=True, timeout=20)

    def serve(self, handler: str, *arguments: Any, port: int = 8080) -> subprocess.Popen:
        """A server over there: a function of this module, called with each connection in a thread of its own."""
        command = [sys.executable, __file__, handler, str(port)]
        process = self.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(arguments).encode())
        process.stdin.close()
        assert process.stdout.readline() == b"ready\n"
        return process

    def nginx(self, files: dict[str, bytes], port: int = 80) -> Path:
        """nginx over there, with these files; returns its directory."""
        root = scratch()
        for name, data in files.items():
            (root / name).write_bytes(data)
        (root / "nginx.conf").write_text(NGINX.format(root=root, port=port))
        self.start(["nginx", "-p", str(root), "-c", str(root / "nginx.conf")], stderr=subprocess.DEVNULL)
        until = time.monotonic() + 5
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection((HOST4, port), 1):
                return root
            time.sleep(0.02)
        raise AssertionError("nginx does not answer")


NGINX = """\
user root; daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;
events {{ worker_connections 8000; }}
http {{
    access_log off; client_body_temp_path {root}/body; default_type text/plain; server_tokens off;
    proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
    keepalive_requests 100000;
    server {{
        listen {port} backlog=4096; listen [::]:{port} backlog=4096; root {root};
        location /post {{ client_max_body_size 50m; client_body_buffer_size 1m; return 200 "thanks\\n"; }}
    }}
}}
"""


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="liveplay-")


def scratch() -> Path:
    """A new directory, which goes with the process."""
    return Path(tempfile.mkdtemp(dir=_scratch().name))


def ip(batch: str, inside: Sequence[str] = ()) -> None:
    subprocess.run([*inside, "ip", "-batch", "-"], input=batch, text=True, check=True, timeout=10)


def liveplay(*arguments: str, timeout: float = 50) -> subprocess.CompletedProcess[str]:
    """The command, in this network."""
    command = [sys.executable, str(COMMAND), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def rulesets() -> str:
    return subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, timeout=10).stdout


# --- servers: what runs over there


def replay(connection: socket.socket, lines: list[tuple[str, str]], seed: int, mood: str) -> None:
    """Say the server's lines (hex), each when the client's before it are in; mood: how segments are cut."""
    source = random.Random(seed)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for who, text in lines:
        data = bytes.fromhex(text)
        if who == "C":
            while data:
                got = connection.recv(min(len(data), 65536))
                if not got:
                    return
                data = data[len(got) :]
            continue
        while data:
            size = {"tiny": source.randint(1, 40), "cut": source.randint(1, 3000), "whole": len(data)}[mood]
            connection.sendall(data[:size])
            data = data[size:]
            if data and mood != "whole":
                time.sleep(source.choice((0, 0, 0.001)))
    connection.settimeout(3)
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(65536):
        pass


def talk(connection: socket.socket, greeting: str, answers: dict[str, str]) -> None:
    """A server of lines, such as SMTP: a greeting, and for the first word of each line an answer."""
    connection.sendall(greeting.encode())
    body = False
    with connection.makefile("rb") as lines:
        for line in lines:
            word = line.split()[0].decode().upper() if line.split() else ""
            if body and line != b".\r\n":
                continue
            body = word == "DATA" and not body
            connection.sendall(answers.get(word, answers[""]).encode())
            if word == "QUIT":
                return


def slow_reader(connection: socket.socket, size: int) -> None:
    """Reads nothing for a while, then everything, then says how much it was."""
    time.sleep(0.7)
    left = size
    while left:
        left -= len(connection.recv(min(left, 4096)))
    connection.sendall(b"got %d\r\n" % size)


def serve(handler: str, arguments: list, port: int) -> None:
    functions: dict[str, Callable] = {"replay": replay, "talk": talk, "slow_reader": slow_reader}
    server = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=2000)
    if handler == "slow_reader":
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    print("ready", flush=True)

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            functions[handler](connection, *arguments)

    while True:
        threading.Thread(target=one, args=(server.accept()[0],), daemon=True).start()


def have(*programs: str) -> str:
    """Which of these programs is missing, or ""."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    return next((program for program in programs if not shutil.which(program)), "")


if __name__ == "__main__":
    serve(sys.argv[1], json.load(sys.stdin), int(sys.argv[2]))
