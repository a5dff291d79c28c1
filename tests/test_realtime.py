"""--realtime: what the kernel says of the process while it sends, and what is said where it is not permitted."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import namespace
from test_replay import COMMAND, SECOND, write


def scheduling(pid: int, thread: int) -> tuple[int, int, str]:
    """(policy, real-time priority, processors) of a thread: proc_pid_stat(5), fields 41 and 40."""
    task = Path(f"/proc/{pid}/task/{thread}")
    fields = (task / "stat").read_text().rpartition(")")[2].split()
    found = re.search(r"Cpus_allowed_list:\s*(\S+)", (task / "status").read_text())
    assert found
    return int(fields[41 - 3]), int(fields[40 - 3]), found[1]


def locked(pid: int) -> int:
    found = re.search(r"VmLck:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) if found else 0


def permitted() -> bool:
    """Whether this process may have real-time priority and locked memory: root, outside of user namespaces."""
    capabilities = re.search(r"CapEff:\s*(\w+)", Path("/proc/self/status").read_text())
    assert capabilities
    nice, lock = 1 << 23, 1 << 14  # CAP_SYS_NICE, CAP_IPC_LOCK of <linux/capability.h>
    return int(capabilities[1], 16) & (nice | lock) == nice | lock


def replaying(path: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """A replay onto the loopback device of a namespace of its own, once it sends."""
    inside = ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "-"]
    command = [*inside, *COMMAND, "-i", "lo", "--realtime", "--stats", "0.1", *options, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    return process, process.stderr.readline()


def check_process(path: Path, *options: str, senders: int = 1) -> None:
    process, said = replaying(path, *options)
    try:
        assert re.search(r"1 packets, .* late by", said), said
        time.sleep(0.1)
        threads = sorted(map(int, os.listdir(f"/proc/{process.pid}/task")))
        found = {thread: scheduling(process.pid, thread) for thread in threads}
        assert found[process.pid][:2] == (1, 10)  # SCHED_FIFO
        assert found[process.pid][2] == str(max(os.sched_getaffinity(0)))
        assert sum(policy == 1 for policy, _, _ in found.values()) == senders
        assert locked(process.pid) > 10_000
    finally:
        process.send_signal(2)
        process.communicate(timeout=10)
    assert process.returncode == 130


def test_the_kernel_gives_what_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "in.pcap", [0, 3600 * SECOND])
    path.chmod(0o644)
    tmp_path.chmod(0o755)
    if permitted():
        check_process(path)
        check_process(path, "--threads", "2", senders=3)
    namespace.call(in_refused, str(path))


def in_refused(path: str) -> None:
    """In a user namespace nobody has these capabilities; the packets go all the same."""
    command = [*COMMAND, "-i", "pt0", "--realtime", "-t", path]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert result.returncode == 0
    assert result.stderr == (
        "pcapreplay: --realtime: no SCHED_FIFO (Operation not permitted): it needs CAP_SYS_NICE\n"
        "pcapreplay: --realtime: memory cannot be locked: it needs CAP_IPC_LOCK\n"
    )


def test_root_given_up_keeps_the_priority(tmp_path: Path) -> None:
    if not permitted() or os.geteuid():
        return
    path = write(tmp_path / "in.pcap", [0, 3600 * SECOND])
    for directory in (path, *path.parents):
        if directory.is_relative_to("/tmp/"):
            directory.chmod(0o755)
    process, said = replaying(path, "-Z", "nobody")
    try:
        assert process.stderr
        while "unlocked" in said:  # root that may not lift limits
            said = process.stderr.readline()
        assert re.search(r"1 packets, .* late by", said), said
        assert re.search(r"Uid:\s+[1-9]", Path(f"/proc/{process.pid}/status").read_text())
        assert scheduling(process.pid, process.pid)[:2] == (1, 10)
    finally:
        process.send_signal(2)
        process.communicate(timeout=10)
