"""What holds for all tests: with CI=true a test that does not run has failed."""

import os
import signal

import captures
import pytest

# Started behind `&` or nohup, a process ignores these, and so would every command that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

FORBIDDEN = "skipped, which CI=true forbids: "


def _forbid_skip(report) -> None:
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = FORBIDDEN + reason.removeprefix("Skipped: ")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    _forbid_skip(report)
    return report


@pytest.fixture(scope="session")
def merged(tmp_path_factory):
    """All sound real captures in one (captures.Merged)."""
    if not captures.index():
        pytest.skip(captures.MISSING)
    return captures.Merged(tmp_path_factory.mktemp("merged"))


@pytest.fixture(autouse=True)
def _signals():
    """A command that a test runs in this process sets how it ends: that ends with the test."""
    numbers = (signal.SIGPIPE, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)
