"""The map of a dataset: what is found, in which order, what is read again, and whether GopherCap can read it."""

from __future__ import annotations

import concurrent.futures
import gzip
import json
import os
import pathlib
import subprocess
import sys

import pytest
from captures import PcapngBlocks, ether, ipv4, pcap, udp

from pcaptools.errors import UsageError
from pcaptools.files import dataset

TOP = pathlib.Path(__file__).resolve().parent.parent
DATA = ether(ipv4(udp(b"x" * 20), 17))

# GopherCap's schema: what its Go structures decode, with the types that they demand.
SET = {"beginning": str, "end": str, "files": list}
FILE = {
    "path": str, "snaplen": int, "packets": int, "size": int, "max_packet_size": int, "out_of_order": int,
    "beginning": str, "end": str, "pps": float, "duration": int, "duration_human": str, "delay": int,
    "delay_human": str,
}  # fmt: skip


@pytest.fixture
def tree(tmp_path: pathlib.Path, monkeypatch) -> pathlib.Path:
    """A directory of captures and of other things; the current directory is above it."""
    top = tmp_path / "set"
    for name in ("b", "a", "a/deep"):
        (top / name).mkdir(parents=True, exist_ok=True)
    b = PcapngBlocks()
    (top / "b" / "two.pcap").write_bytes(pcap([(1000, 0, DATA, 62), (1001, 500000, DATA[:20], 62)]))
    (top / "a" / "ng.pcapng").write_bytes(b.section() + b.interface(1, 96) + b.packet(DATA, 0, 1002 * 10**6))
    (top / "a" / "deep" / "zipped.pcap.gz").write_bytes(gzip.compress(pcap([(1003, 0, DATA, 62)] * 3)))
    (top / "cut.pcap").write_bytes(pcap([(1005, 0, DATA, 62), (1004, 0, DATA, 62), (1, 1, DATA, 62)])[:-5])
    (top / "empty.pcap").write_bytes(b"")
    (top / "none.pcap").write_bytes(pcap([]))
    (top / "notes.txt").write_text("no capture\n")
    monkeypatch.chdir(tmp_path)
    return top


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOP / "bin" / "pcapinfo"), *arguments],
        capture_output=True, text=True, timeout=30, env={**os.environ, "PYTHONPATH": str(TOP)},
    )  # fmt: skip


def paths(*arguments: str) -> list[str]:
    result = run("--recursive", *arguments, "--dump-json", "-")
    return [entry["path"] for entry in json.loads(result.stdout)["files"]]


def test_the_map_has_gophercaps_schema_and_true_figures(tree) -> None:
    result = run("--recursive", "set", "--file-suffix", ".pcap", "--dump-json", "meta.json", "--workers", "2")
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.splitlines() == [
        "pcapinfo: set/cut.pcap: packet 3 at offset 180: cut short: 73 of 78 bytes are there",
        "pcapinfo: set/empty.pcap: empty: not a capture",
    ]
    found = json.loads((tree.parent / "meta.json").read_text())
    for part, schema in ((found, SET), *((entry, FILE) for entry in found["files"])):
        for name, kind in schema.items():
            assert type(part[name]) is kind, name
    assert (found["beginning"], found["end"]) == ("1970-01-01T00:16:40Z", "1970-01-01T00:16:45Z")
    entries = {entry["path"]: entry for entry in found["files"]}
    assert list(entries) == ["set/cut.pcap", "set/empty.pcap", "set/none.pcap", "set/b/two.pcap"]
    two = entries["set/b/two.pcap"]
    assert (two["packets"], two["size"], two["bytes"], two["max_packet_size"], two["truncated"]) == (2, 82, 124, 62, 1)
    assert (two["beginning"], two["end"]) == ("1970-01-01T00:16:40Z", "1970-01-01T00:16:41.5Z")
    assert (two["duration"], two["duration_human"], two["out_of_order"]) == (1_500_000_000, "1.5s", 0)
    assert two["pps"] == pytest.approx(4 / 3) and two["error"] is None
    cut = entries["set/cut.pcap"]
    assert (cut["packets"], cut["out_of_order"], cut["delay"], cut["delay_human"]) == (2, 1, 4_000_000_000, "4s")
    assert cut["error_offset"] == 180 and "cut short" in cut["error"]
    none = entries["set/none.pcap"]
    assert (none["packets"], none["pps"], none["delay"], none["error"]) == (0, 0.0, 0, None)


def test_files_are_found_by_suffix_and_expression_in_a_stable_order(tree) -> None:
    whole = ["set/cut.pcap", "set/none.pcap", "set/a/ng.pcapng", "set/a/deep/zipped.pcap.gz", "set/b/two.pcap"]
    assert paths("set") == whole
    assert paths("set/b", "set", "set") == [whole[4], *whole[:4]]
    assert paths("set", "--file-regexp", r"/a/") == whole[2:4]
    assert paths("set", "--file-suffix", ".gz", "--workers", "1") == [whole[3]]
    assert paths("set", "--workers", "3") == paths("set", "--workers", "1")


def test_reports_of_a_tree_leave_out_what_is_no_capture(tree) -> None:
    result = run("--recursive", "-Trc", "set")
    assert result.stdout.splitlines() == [
        "set/cut.pcap\t2", "set/none.pcap\t0", "set/a/ng.pcapng\t1", "set/a/deep/zipped.pcap.gz\t3",
        "set/b/two.pcap\t2",
    ]  # fmt: skip
    assert result.returncode == 1


def test_what_did_not_change_is_not_read_again(tree) -> None:
    argv = ("--recursive", "set/b", "--dump-json", "meta.json", "--workers", "1")
    assert run(*argv).returncode == 0
    path = tree / "b" / "two.pcap"
    status = path.stat()
    path.write_bytes(bytes(status.st_size))  # damage it unseen
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    (tree / "b" / "new.pcap").write_bytes(pcap([DATA]))
    assert run(*argv).returncode == 0
    packets = {
        entry["path"]: entry["packets"] for entry in json.loads((tree.parent / "meta.json").read_text())["files"]
    }
    assert packets == {"set/b/new.pcap": 1, "set/b/two.pcap": 2}
    os.utime(path, ns=(1, 1))
    assert run(*argv).returncode == 0, "the damaged one is no capture now, and no suffix asks for it"
    files = json.loads((tree.parent / "meta.json").read_text())["files"]
    assert [entry["path"] for entry in files] == ["set/b/new.pcap"]


@pytest.mark.parametrize("text", ["no map", "[]", '{"files": 3}', '{"files": [3]}'])
def test_no_file_that_is_not_a_map_is_overwritten(tree, text: str) -> None:
    (tree.parent / "precious").write_text(text)
    result = run("--recursive", "set", "--dump-json", "precious")
    assert result.returncode == 2 and "is not a map" in result.stderr
    assert (tree.parent / "precious").read_text() == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--recursive", "set", "--file-regexp", "("), "--file-regexp: "),
        (("--recursive",), "name the captures"),
        (("--recursive", "nowhere"), "nowhere: No such file or directory"),
        (("set", "--dump-json", "x.json"), "Is a directory"),
        (("--file-suffix", ".pcap", "set"), "go with --recursive"),
        (("--recursive", "set", "--dump-json", "x.json", "--workers", "many"), "--workers: "),
        (("--recursive", "set", "--dump-json", "x.json", "--filter", "tcp"), "--filter"),
        (("--recursive", "set", "--file-suffix", ".none", "--dump-json", "x.json"), "no capture found"),
    ],
)
def test_what_cannot_be_done_is_said(tree, arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr
    assert not (tree.parent / "x.json").exists()


def test_any_executor_takes_the_place_of_the_pool(tree) -> None:
    class Remembering(concurrent.futures.ThreadPoolExecutor):
        calls: list = []  # noqa: RUF012

        def submit(self, task, /, *arguments, **options):
            self.calls.append((task, arguments))
            return super().submit(task, *arguments, **options)

    steps: list[tuple[int, int]] = []
    names = dataset.walk(["set"], True, None, None, steps.append)
    with Remembering(2) as executor:
        records = dataset.map_captures(names, {}, executor, lambda done, total: steps.append((done, total)))
    assert [record["path"] for record in records] == names
    assert {task for task, _ in Remembering.calls} == {dataset.describe_all}
    assert steps[0] == (0, len(names)) and steps[-1] == (len(names), len(names))
    assert records == dataset.map_captures(names, {}, None, lambda *_: None)


def test_work_is_shared_in_bounded_pieces() -> None:
    small = [dataset.Found(str(k), 10, 0) for k in range(100)]
    assert [len(chunk) for chunk in dataset._chunks(small)] == [32, 32, 32, 4]
    large = [dataset.Found(str(k), 40 << 20, 0) for k in range(3)]
    assert [len(chunk) for chunk in dataset._chunks(large)] == [1, 1, 1]
    assert dataset._chunks([]) == []
    assert dataset.process_pool(1) is None


def test_a_file_that_went_away_is_an_error_in_its_record(tmp_path) -> None:
    record = dataset.describe(str(tmp_path / "gone.pcap"))
    assert record["error"] == "No such file or directory" and record["packets"] == 0
    json.loads(dataset.dump([record]))


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"), (1, "1ns"), (1100, "1.1µs"), (2_200_000, "2.2ms"), (3_300_000_000, "3.3s"),
        (-1_500_000_000, "-1.5s"), (206_887_256_000, "3m26.887256s"), (3_600_000_000_000, "1h0m0s"),
        (5_400_000_000_001, "1h30m0.000000001s"),
    ],
)  # fmt: skip
def test_durations_read_as_gos(ns: int, text: str) -> None:
    assert dataset.go_duration(ns) == text


def test_the_expression_is_checked_before_the_walk() -> None:
    with pytest.raises(UsageError):
        dataset.walk([], True, None, "[", print)
