"""Outputs: whole or not at all, and never over something that matters."""

import os
import pathlib
import pty
import signal
import stat
import subprocess
import sys
import tempfile
import threading

import pytest

from pcaptools.errors import OutputError
from pcaptools.files.output import Output
from pcaptools.files.streams import PIPE_SIZE

DATA = bytes(range(256)) * 5000


def write(path, data: bytes = DATA) -> None:
    with Output(os.fspath(path)) as output:
        output.write(memoryview(data))


def python(code: str, *arguments: str, **options) -> subprocess.CompletedProcess:
    code = "import sys\nfrom pcaptools.files.output import Output\n" + code
    return subprocess.run([sys.executable, "-c", code, *arguments], check=False, **options)


WRITE = "with Output(sys.argv[1]) as o: o.write(b'x' * 300_000)"


def test_a_new_file_obeys_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "new")
    finally:
        os.umask(before)
    assert (tmp_path / "new").read_bytes() == DATA
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["new"]


def test_a_replaced_file_keeps_its_mode_and_its_links(tmp_path):
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "file"
    target.write_bytes(b"old")
    target.chmod(0o604)
    (tmp_path / "link").symlink_to("real/file")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert target.read_bytes() == DATA
    assert stat.S_IMODE(target.stat().st_mode) == 0o604
    assert os.listdir(tmp_path / "real") == ["file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_root_leaves_a_replaced_file_to_its_owner(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    os.chown(tmp_path / "file", 1234, 4321)
    write(tmp_path / "file")
    status = (tmp_path / "file").stat()
    assert (status.st_uid, status.st_gid) == (1234, 4321)


def test_a_link_to_nothing_makes_its_target(tmp_path):
    (tmp_path / "link").symlink_to("target")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == DATA


def test_the_output_may_be_the_input(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(DATA)
    with open(path, "rb") as source, Output(str(path)) as output:
        while piece := source.read(1000):
            output.write(piece[::-1])
    assert len(path.read_bytes()) == len(DATA)
    assert path.read_bytes()[:1000] == DATA[:1000][::-1]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, BrokenPipeError])
def test_a_failure_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(error), Output(str(path)) as output:
        output.write(DATA)
        assert len(os.listdir(tmp_path)) == 2
        raise error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_an_interrupted_process_leaves_nothing(tmp_path):
    code = "import time\nwith Output(sys.argv[1]) as o:\n o.write(b'x'); print('go', flush=True); time.sleep(60)"
    code = "import sys\nfrom pcaptools.files.output import Output\n" + code
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "file")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout and process.stdout.readline() == b"go\n"
    assert len(os.listdir(tmp_path)) == 1
    process.send_signal(signal.SIGINT)
    process.stdout.close()
    assert process.wait() != 0
    assert os.listdir(tmp_path) == []


def test_nothing_is_there_before_commit(tmp_path):
    output = Output(str(tmp_path / "file"))
    output.write(DATA)
    assert not (tmp_path / "file").exists()
    assert all(name.startswith(".") for name in os.listdir(tmp_path))
    output.commit()
    output.commit()
    output.abort()
    assert (tmp_path / "file").read_bytes() == DATA


@pytest.mark.parametrize(
    ("suffix", "program"),
    [("gz", "gzip"), ("tgz", "gzip"), ("zst", "zstd"), ("lz4", "lz4"), ("xz", "xz"), ("bz2", "bzip2")],
)
def test_a_suffix_compresses(tmp_path, suffix, program):
    for data in (b"", DATA):
        write(tmp_path / f"file.{suffix}", data)
        packed = (tmp_path / f"file.{suffix}").read_bytes()
        assert subprocess.run([program, "-dc"], input=packed, stdout=subprocess.PIPE, check=True).stdout == data


def test_unusable_paths(tmp_path):
    missing = tmp_path / "missing" / "file"
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_bytes(b"")
    for path, reason in [
        (str(missing), f"{missing}: No such file or directory"),
        (str(tmp_path), f"{tmp_path}: Is a directory"),
        (str(tmp_path / "loop"), "loop: Too many levels of symbolic links"),
        (str(tmp_path / "file" / "x"), "x: Not a directory"),
        (str(tmp_path / "new") + "/", "is not the name of a file"),
        ("", "is not the name of a file"),
        (str(tmp_path / ("n" * 300)), "File name too long"),
    ]:
        with pytest.raises(OutputError) as caught:
            write(path)
        assert str(caught.value).endswith(reason)
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]


def unprivileged(path) -> str:
    """Try to write as a user without root's powers; the message."""
    code = (
        "import os\nfrom pcaptools.errors import OutputError\n"
        "if os.geteuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "try:\n with Output(sys.argv[1]) as o: o.write(b'new')\nexcept OutputError as e: print(e)\n"
    )
    return python(code, str(path), stdout=subprocess.PIPE, text=True).stdout.strip()


@pytest.fixture
def public_directory():
    """A directory that another user reaches, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o777)
        yield pathlib.Path(path)


def test_a_file_that_may_not_be_written_is_not_replaced(public_directory):
    path = public_directory / "file"
    path.write_bytes(b"old")
    path.chmod(0o444)
    assert unprivileged(path) == f"{path}: Permission denied"
    assert path.read_bytes() == b"old"
    assert os.listdir(public_directory) == ["file"]


def test_a_directory_that_may_not_be_written(public_directory):
    public_directory.chmod(0o555)
    assert unprivileged(public_directory / "file") == f"{public_directory / 'file'}: Permission denied"


def test_a_full_device():
    with pytest.raises(OutputError, match=r"^/dev/full: No space left on device$"):
        write("/dev/full")
    with open("/dev/full", "wb") as full:
        result = python("with Output(None) as o: o.write(b'x')", stdout=full, stderr=subprocess.PIPE)
    assert b"OutputError: standard output: No space left on device" in result.stderr


def test_a_full_file_system(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], stderr=subprocess.DEVNULL, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        (tmp_path / "file").write_bytes(b"old")
        with pytest.raises(OutputError, match="file: No space left on device"):
            write(tmp_path / "file")
        assert os.listdir(tmp_path) == ["file"]
        assert (tmp_path / "file").read_bytes() == b"old"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_file_size_limit(tmp_path):
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n" + WRITE
    result = python(code, str(tmp_path / "file"), stderr=subprocess.PIPE)
    assert b"file: File too large" in result.stderr
    assert os.listdir(tmp_path) == []


def test_a_compressed_stream_that_fails_at_its_end(tmp_path):
    link = tmp_path / "full.gz"
    link.symlink_to("/dev/full")
    output = Output(str(link))
    output.write(b"x")
    with pytest.raises(OutputError, match="No space left"):
        output.commit()


def test_a_fifo_is_written_straight(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()
    write(path)
    reader.join()
    assert got == [DATA]
    assert path.is_fifo()


def test_a_device_is_written_straight():
    write(os.devnull)
    assert not stat.S_ISREG(os.stat(os.devnull).st_mode)


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_is_written_where_it_stands(tmp_path, name):
    path = tmp_path / "file"
    with open(path, "ab", buffering=0) as file:
        file.write(b"before ")
        assert python(WRITE, name, stdout=file).returncode == 0
        file.write(b" after")
    assert path.read_bytes() == b"before " + b"x" * 300_000 + b" after"


def test_short_writes_and_a_larger_pipe():
    code = WRITE + "\nimport fcntl; print(fcntl.fcntl(1, 1032), file=sys.stderr)"  # F_GETPIPE_SZ
    result = python(code, "-", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert result.stdout == b"x" * 300_000
    if sys.platform == "linux":
        assert int(result.stderr) >= PIPE_SIZE


def test_a_closed_pipe_is_for_the_command_to_end_by():
    reader, writer = os.pipe()
    os.close(reader)
    code = "try:\n " + WRITE + "\nexcept BrokenPipeError: sys.exit(7)"
    assert python(code, "-", stdout=writer).returncode == 7
    os.close(writer)


def test_closed_standard_output():
    code = "import os; os.close(1)\n" + WRITE
    assert b"OutputError: standard output: Bad file descriptor" in python(code, "-", stderr=subprocess.PIPE).stderr


def test_a_terminal_is_refused():
    master, terminal = pty.openpty()
    try:
        for name in ["-", "/dev/stdout", os.ttyname(terminal)]:
            result = python(WRITE, name, stdout=terminal, stderr=subprocess.PIPE)
            assert b"OutputError: refusing to write binary data to a terminal" in result.stderr
    finally:
        os.close(terminal)
        os.close(master)
