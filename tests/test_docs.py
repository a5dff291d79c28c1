"""The documentation tells the truth: pages and usage texts agree, and every example runs.

An example is a ```sh block of the README, or a `.Bd -literal` display in the EXAMPLES of a manual page. It runs in a
directory of its own that holds in.pcap, in.pcapng, http.pcap, http.pcap.gz and dump.tgz, in a private network with a
device eth0 where it names one; `sudo` is there and changes nothing. A crontab is run as cron would run its line, with
/srv/pcap for that directory. Blocks marked ```console install or build something and are not run.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections import namedtuple
from pathlib import Path

import captures
import docopt
import dpkt
import namespace
import pytest

from pcaptools import __version__
from pcaptools.core import linktype
from pcaptools.files.capture import open_capture

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = sorted(path.name for path in (ROOT / "bin").iterdir())
PAGES = sorted((ROOT / "man").iterdir())
SHARED = ROOT / "man" / "pcaptools.7"

CRON_PATH = "/usr/local/bin:/usr/bin:/bin"
DIRECTORY = "/srv/pcap"  # of the crontab
TIMEOUT = 10  # s: of one example
NETWORK = "ip link set pt0 down && ip link set pt0 name eth0 && ip link set eth0 up || exit 99\n"

REAL = ("live-tcp/FlowTest__http_post.pcap", "live-tcp/arkime__http-simple-get.pcap", "formats/dnscap__dns.pcap.gz")
START, STEP, LARGEST = 1_700_000_000, 0.002, 1514  # s, s, bytes

Option = namedtuple("Option", "short long argument")
Example = namedtuple("Example", "name script")


# Usage texts and manual pages


def usage(command: str) -> str:
    """The docstring of a command."""
    text = importlib.import_module(f"pcaptools.commands.{command.replace('-', '_')}").__doc__
    assert text
    return text


def usage_options(command: str) -> list[Option]:
    found = re.findall(r"^  (?:-(\w), )?--([\w-]+)(?:=(\w+))?  ", usage(command), re.MULTILINE)
    return [Option(*fields) for fields in found]


def section(page: Path, title: str) -> list[str]:
    """The lines of one section of a manual page."""
    _, found, rest = page.read_text().partition(f"\n.Sh {title}\n")
    assert found, f"{page.name} has no section {title}"
    return rest.partition("\n.Sh ")[0].splitlines()


def page_of(command: str) -> Path:
    return ROOT / "man" / f"{command}.1"


def page_options(command: str) -> list[Option]:
    text = "\n".join(section(page_of(command), "OPTIONS"))
    found = re.findall(r"^\.It (?:Fl (\w) , )?Fl -([\w-]+)(?: Ns = Ns Ar (\w+))?$", text, re.MULTILINE)
    return [Option(*fields) for fields in found]


def plain(line: str, command: str) -> str:
    """A line of a SYNOPSIS as the reader sees it."""
    words = line.split()
    if words == [".Nm"]:
        return f"\n{command}"
    arguments = " ".join(words[1:]).replace(" Ns ", "")
    arguments = re.sub(r"\bFl (\S+)", r"-\1", re.sub(r"\b(Ar|Cm) ", "", arguments))
    if words[0] == ".Oo":
        return f" [{arguments.replace(' Oc', ']')}"
    opening, closing = {".Op": "[]", ".Pq": "()", ".Cm": ("", ""), ".Fl": ("-", "")}[words[0]]
    return f" {opening}{arguments}{closing}"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_synopsis_is_the_usage(command: str) -> None:
    lines = usage(command).partition("Usage:\n")[2].partition("\n\n")[0].splitlines()
    wanted = [re.sub(r"<(\w+)>", r"\1", re.sub(r"<(\w+)>\.\.\.", r"\1 ...", line.strip())) for line in lines]
    shown = "".join(plain(line, command) for line in section(page_of(command), "SYNOPSIS"))
    assert shown.strip().splitlines() == wanted


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_has_the_options_of_the_usage(command: str) -> None:
    assert usage_options(command)
    assert page_options(command) == usage_options(command)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_long_option_is_accepted(command: str) -> None:
    first = re.findall(rf"^  {command} ([a-z]+)", usage(command), re.MULTILINE)[:1]
    for option in usage_options(command):
        given = f"--{option.long}=1" if option.argument else f"--{option.long}"
        arguments = docopt.docopt(usage(command), [*first, given], default_help=False)
        assert arguments[f"--{option.long}"] in (("1", ["1"]) if option.argument else (True,))


def test_the_table_of_short_letters_is_complete() -> None:
    rows = [line for line in section(SHARED, "DESCRIPTION") if line.startswith((".It Em letter", ".It Fl "))]
    titles, *letters = ([re.sub(r"^(\.It )?(Fl|Em) ", "", cell) for cell in row.split(" Ta ")] for row in rows)
    assert sorted(titles[1:]) == COMMANDS
    shown = {
        (command, letter, long)
        for letter, *longs in letters
        for command, long in zip(titles[1:], longs, strict=True)
        if long != r"\(em"
    }
    wanted = {(command, o.short, o.long) for command in COMMANDS for o in usage_options(command) if o.short}
    assert shown == wanted


def test_the_located_link_types_are_listed() -> None:
    shown = re.findall(r"^\.It (\d+) Ta (\w+)", SHARED.read_text(), re.MULTILINE)
    assert shown == [(str(row.number), row.name) for row in linktype.TABLE if row.located]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_is_sound_mdoc(page: Path) -> None:
    if not shutil.which("mandoc"):
        pytest.skip("mandoc is not installed")
    result = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True, timeout=10)
    assert (result.returncode, result.stdout) == (0, "")


# At the command line


def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "bin" / command, *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_is_the_usage(command: str, option: str) -> None:
    result = run(command, option)
    assert (result.returncode, result.stdout, result.stderr) == (0, usage(command).strip() + "\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_version(command: str) -> None:
    result = run(command, "--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{command} (pcaptools) {__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--no-such-option", "-Y"])
def test_a_wrong_option_is_named(command: str, option: str) -> None:
    result = run(command, option)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"{command}: unknown option {option}\nTry '{command} --help'.\n"


# Examples


def examples() -> list[Example]:
    found = []
    readme = (ROOT / "README.md").read_text()
    for number, script in enumerate(re.findall(r"^```sh\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL), 1):
        found.append(Example(f"README-{number}", script))
    for page in PAGES:
        text = "\n".join(section(page, "EXAMPLES"))
        displays = re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed$", text, re.MULTILINE | re.DOTALL)
        for number, display in enumerate(displays, 1):
            found.append(Example(f"{page.name}-{number}", display.replace(r"\(aq", "'").replace(r"\e", "\\")))
    return found


def as_cron_runs_it(script: str) -> str | None:
    """The command of a crontab, None where the script is something else."""
    line = re.search(r"^(?:[\d*/,-]+ ){5}(.*)$", script, re.MULTILINE)
    return line and line[1].replace(r"\%", "%")


def generated_frames() -> list[bytes]:
    """A lookup and web traffic."""
    payloads = (captures.udp(bytes(12)), 17), *[(captures.tcp(bytes(size)), 6) for size in range(9)]
    return [captures.ether(captures.ipv4(payload, protocol)) for payload, protocol in payloads]


def real_frames() -> list[bytes]:
    """Ethernet frames of real captures that fit a device with an MTU of 1500; none where there are no captures."""
    if not captures.index():
        return []
    frames = [data for name in REAL for _, data in dpkt.pcap.Reader(io.BytesIO(captures.content(name)))]
    return [data for data in frames if len(data) <= LARGEST]


def write_capture(path: Path, frames: list[tuple[float, bytes]]) -> None:
    with path.open("wb") as file:
        writer = dpkt.pcap.Writer(file)
        for time, data in frames:
            writer.writepkt(data, time)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples work on."""
    directory = tmp_path_factory.mktemp("files")
    timed = [(START + number * STEP, data) for number, data in enumerate(real_frames() or generated_frames())]
    half = len(timed) // 2
    write_capture(directory / "in.pcap", timed)
    write_capture(directory / "first.pcap", timed[:half])
    write_capture(directory / "second.pcap", timed[half:])
    result = run("pcaprewrite", "-f", "tcp port 80", "-w", str(directory / "http.pcap"), str(directory / "in.pcap"))
    assert result.returncode == 0, result.stderr
    for target in ("http.pcap.gz", "in.pcapng"):
        form = "pcapng" if target.endswith("ng") else "pcap"
        source = directory / target.replace(".gz", "").replace("pcapng", "pcap")
        assert run("pcaprewrite", "--format", form, "-w", str(directory / target), str(source)).returncode == 0
    with tarfile.open(directory / "dump.tgz", "w:gz") as archive:
        archive.add(ROOT / "LICENSE", "dump/notes.txt")
        for name in ("first.pcap", "second.pcap"):
            archive.add(directory / name, f"dump/{name}")
            (directory / name).unlink()
    return directory


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the commands, and with a `sudo` that changes nothing."""
    directory = tmp_path_factory.mktemp("bin")
    for command in COMMANDS:
        stub = (ROOT / "bin" / command).read_text().partition("\n")[2]
        (directory / command).write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n{stub}")
    (directory / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    for program in directory.iterdir():
        program.chmod(0o755)
    return directory


def run_example(script: str, directory: Path, programs: Path) -> subprocess.CompletedProcess[str]:
    shell = ["bash", "-o", "pipefail", "-euc"] if shutil.which("bash") else ["sh", "-euc"]
    options = {"cwd": directory, "timeout": TIMEOUT, "stdin": subprocess.DEVNULL}
    cron = as_cron_runs_it(script)
    if cron:
        script = cron.replace(DIRECTORY, str(directory))
        options["env"] = {"PATH": f"{programs}:{CRON_PATH}"}
    else:
        options["env"] = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}:/usr/sbin:/sbin"}
    if "eth0" in script or "127.0.0.1" in script:  # its ports are nobody else's
        return namespace.run([*shell, NETWORK + script], **options)
    return subprocess.run([*shell, script], capture_output=True, text=True, **options)


def test_there_are_examples() -> None:
    names = [example.name for example in examples()]
    for source in ("README", *(page.name for page in PAGES)):
        assert f"{source}-1" in names


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_the_example_runs(example: Example, files: Path, programs: Path, tmp_path: Path) -> None:
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    before = {path: path.stat().st_ino for path in tmp_path.iterdir()}
    result = run_example(example.script, tmp_path, programs)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    made = [path for path in tmp_path.rglob("*.*") if path.is_file() and before.get(path) != path.stat().st_ino]
    for path in made:
        if not path.name.endswith((".json", ".idx", ".tgz", ".tar.zst")):
            assert sum(batch.n for batch in open_capture(str(path))), f"{path.name} holds no packet"
