"""What all commands share at the command line: usage, streams, messages, exit status. The only importer of docopt.

Exit status: 0 done; 1 done, but not all of it (a damaged file, a packet that could not be handled); 2 not done;
130 interrupted. A closed pipe ends a command by SIGPIPE, silently.
"""

from __future__ import annotations

import sys

from pcaptools import __version__
from pcaptools.errors import PcaptoolsError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeVar

    from pcaptools.core.batch import Batch
    from pcaptools.core.pipeline import Account, Transform

    Args = dict[str, Any]
    Value = TypeVar("Value")

NOT_DONE = 2
INTERRUPTED = 130

GARBAGE = 20_000
"""Objects that may be made before cyclic garbage is looked for."""


class Command:
    """One run of a command: its name, its arguments by usage name, and where its messages go."""

    def __init__(self, name: str, args: Args) -> None:
        self.name = name
        self.args = args
        self.quiet = bool(args.get("--quiet"))
        self.verbose = bool(args.get("--verbose"))
        self.progress = None if self.quiet or not _watched() else Progress(name)

    def say(self, message: str) -> None:
        """One line on stderr, with the command's name in front."""
        Progress.clear()
        print(f"{self.name}: {printable(message)}", file=sys.stderr)

    def warn(self, message: str) -> None:
        """A line that --quiet silences."""
        if not self.quiet:
            self.say(message)

    def watched(self, batches: Iterable[Batch], where: Callable[[], float] | None = None) -> Iterable[Batch]:
        """The same batches, and progress about them where somebody watches. where: how much of the input is read, 0 to
        1."""
        return self.progress.of(batches, where) if self.progress else batches

    def account(self) -> Account:
        """The books of this run; a problem is said at once."""
        from pcaptools.core.pipeline import Account

        return Account(self.say, self.warn)

    def close(self, account: Account) -> int:
        """Say the balance when asked to; returns the exit status."""
        if self.verbose:
            self.say(str(account))
        return account.status

    def value(self, option: str, parse: Callable[[str], Value]) -> Value | None:
        """The value of an option, None when it was not given. A ValueError of `parse` becomes a UsageError."""
        text = self.args.get(option)
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            raise UsageError(f"{option}: {error}") from None

    def format(self) -> str | None:
        """The value of --format: `pcap`, `nspcap`, `pcapng`, or None."""
        return self.value("--format", _format)

    def filter(self, account: Account | None) -> list[Transform]:
        """The transform that -f asks for; the expression is compiled for each link type that comes. Without an account
        it marks only."""
        expression = self.args.get("--filter")
        if expression is None:
            return []
        from pcaptools.engines.select import Filter
        from pcaptools.files.bpf import compile_filter

        return [Filter(lambda linktype, swapped: compile_filter(expression, linktype, swapped), account)]

    def refuse_terminal(self, paths: list[str]) -> None:
        """Nobody types a capture: say so instead of waiting. Raises UsageError."""
        if (not paths or "-" in paths) and sys.stdin is not None and sys.stdin.isatty():
            raise UsageError(f"standard input is a terminal: name a capture or pipe one in (see {self.name} --help)")


class Progress:
    """A line on standard error about long work, rewritten now and then; gone when the work is done."""

    PATIENCE, INTERVAL = 0.5, 0.2
    """Seconds before the first line, and between two."""

    standing = False
    """Whether there is one now."""

    def __init__(self, name: str) -> None:
        from time import monotonic

        self._name = name
        self._clock = monotonic
        self._next = monotonic() + self.PATIENCE

    def show(self, text: str) -> None:
        """Say this, if it is time to say something."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + self.INTERVAL
        print(f"\r{self._name}: {text}\033[K", end="", file=sys.stderr, flush=True)
        Progress.standing = True

    def of(self, batches: Iterable[Batch], where: Callable[[], float] | None = None) -> Iterator[Batch]:
        """The same batches. where: as for Command.watched()."""
        packets = size = 0
        try:
            for batch in batches:
                yield batch
                packets += batch.n
                size += batch.used
                share = f", {where():.0%}" if where else ""
                self.show(f"{packets} packets, {size / 1e6:.0f} MB{share}")
        finally:
            self.clear()

    @classmethod
    def clear(cls) -> None:
        """Take the line away."""
        if cls.standing:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
            cls.standing = False


def _watched() -> bool:
    """Whether somebody sees standard error, and no command behind this one in a pipeline writes to it as well."""
    if sys.stderr is None or not sys.stderr.isatty():
        return False
    import os
    import stat

    try:
        return not stat.S_ISFIFO(os.fstat(1).st_mode)
    except OSError:
        return True


def _format(text: str) -> str:
    if text not in ("pcap", "nspcap", "pcapng"):
        raise ValueError(f"'{text}' is not pcap, nspcap or pcapng")
    return text


def printable(text: str) -> str:
    """Text with control characters as tar shows them, `\\033`: a name from a file must not drive a terminal."""
    return "".join(f"\\{ord(c):03o}" if ord(c) < 32 or ord(c) == 127 else c for c in text)


def whole(text: str) -> int:
    """A whole number of 0 or more. Raises ValueError."""
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"'{text}' is not a whole number")
    return int(text)


def one_of(*names: str) -> Callable[[str], str]:
    """A parser that takes these words. It raises ValueError."""

    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"'{text}' is not {' or '.join(names)}")
        return text

    return parse


def run(
    usage: str,
    body: Callable[[Command], int],
    argv: list[str] | None = None,
    prepare: Callable[[list[str]], list[str]] | None = None,
) -> int:
    """Run a command: `usage` is its docstring, `body` does the work and returns the exit status. `prepare` may change
    the arguments first.

    Help and version are answered before docopt is imported.
    """
    argv = sys.argv[1:] if argv is None else argv
    name = usage.split(":", 1)[0].strip()
    asked = argv[: argv.index("--")] if "--" in argv else argv
    if "--help" in asked or "-h" in asked:
        return _print(usage.strip())
    if "--version" in asked:
        return _print(f"{name} (pcaptools) {__version__}")
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    _collect_seldom()
    try:
        _set_signals()
        if prepare:
            argv = prepare(argv)
        return body(Command(name, _parse(usage, argv)))
    except PcaptoolsError as error:
        return _fail(name, str(error), error.status)
    except KeyboardInterrupt:
        return INTERRUPTED
    except MemoryError as error:
        return _fail(name, str(error) or "not enough memory", NOT_DONE)
    except OSError as error:
        return _fail(name, f"{error.filename or 'input or output'}: {error.strerror or error}", NOT_DONE)
    finally:
        Progress.clear()


def _print(text: str) -> int:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        sys.stdout = None
    return 0


def _fail(name: str, message: str, status: int) -> int:
    Progress.clear()
    first, *more = map(printable, message.splitlines())
    print(f"{name}: {first}", *more, sep="\n", file=sys.stderr)
    return status


def _collect_seldom() -> None:
    """Let the search for cyclic garbage wait: while modules are imported it finds none, at a tenth of the start."""
    import gc

    gc.set_threshold(GARBAGE)


def _set_signals() -> None:
    """SIGPIPE kills, as it does cat; SIGTERM and SIGHUP unwind, so that unfinished files are removed."""
    import signal

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, end)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, end)


def _parse(usage: str, argv: list[str]) -> Args:
    """Arguments by their usage names. Raises UsageError in our words, not docopt's."""
    import docopt

    shorter, absent = _reduced(usage, argv)
    try:
        return {**absent, **docopt.docopt(shorter, argv, default_help=False)}
    except docopt.DocoptExit as error:
        name = usage.split(":", 1)[0].strip()
        reason = _reason(str(error), usage, argv)
        raise UsageError(f"{reason}\nTry '{name} --help'.") from None


MANY = 40
"""Options from which on docopt, whose time grows with their square, is shown only those that the arguments can mean."""


def _reduced(usage: str, argv: list[str]) -> tuple[str, Args]:
    """A usage text with the options that can be meant, and the values of all others."""
    head, found, described = usage.partition("\nOptions:\n")
    lines = described.splitlines()
    if not found or sum(line.lstrip().startswith("-") for line in lines) < MANY:
        return usage, {}
    words = [word.split("=")[0] for word in (argv[: argv.index("--")] if "--" in argv else argv)]
    letters = {letter for word in words if word[:1] == "-" != word[1:2] for letter in word[1:]}
    names = tuple(word for word in words if word.startswith("--"))
    absent: Args = {}
    kept, wanted = [], True
    for line in lines:
        if line.lstrip().startswith("-"):
            option = line.strip().split("  ")[0]
            long, equals, argument = option.split()[-1].partition("=")
            wanted = (
                "[default:" in line or (option[1] != "-" and option[1] in letters) or any(map(long.startswith, names))
            )
            if not wanted:
                repeated = f" [{long} {argument} ...]"
                absent[long] = ([] if repeated in head else None) if equals else False
                head = head.replace(repeated, "")
        if wanted:
            kept.append(line)
    start = head.index("Usage:")
    return f"{head[start:].partition(chr(10) * 2)[0]}\n\nOptions:\n" + "\n".join(kept), absent


def _reason(message: str, usage: str, argv: list[str]) -> str:
    """What is wrong with the arguments, in one line."""
    known = _options(usage)
    seen: set[str] = set()
    for word in argv[: argv.index("--")] if "--" in argv else argv:
        option = word.split("=")[0] if word.startswith("--") else word[:2]
        if not option.startswith("-") or option == "-":
            continue
        full = next((names for names in known if any(name.startswith(option) for name in names)), None)
        if full is None:
            return f"unknown option {option}"
        if full[-1] in seen:
            return f"{full[-1]} is given twice"
        seen.add(full[-1])
    first = message.splitlines()[0] if message else ""
    return first.rstrip(".") if "requires argument" in first else "these arguments do not fit the usage"


def _options(usage: str) -> list[list[str]]:
    """The names of each option, the long one last."""
    lines = (line.strip().split("  ")[0] for line in usage.splitlines() if line.lstrip().startswith("-"))
    return [[word.split("=")[0].rstrip(",") for word in line.split()] for line in lines]


def leave(status: int) -> None:
    """End the process at once: nothing is left to tidy up, and a thread that reads ahead must not see it happen."""
    import os

    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            status = status or NOT_DONE
    os._exit(status)
