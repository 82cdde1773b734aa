"""The sweeper's process ends when it is told to, after the sweep at hand."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from client import settings

PROGRAM = """
import sys, time
from service import leftovers, sweeper, sweeping
def sweep():
    print("begun", flush=True)
    time.sleep(1)
    print("ended", flush=True)
sweeping.sweep, leftovers.clear = sweep, lambda: None
sys.argv = ["sweeper"]
sweeper.main()
"""


FAULT = PROGRAM.replace('print("ended", flush=True)', 'print("ended", flush=True); 1 / 0')


@contextlib.contextmanager
def sweeper(program: str, seconds: str) -> Iterator[tuple[subprocess.Popen[str], Iterator[str]]]:
    """The process, sweeping so often, and the lines that it says."""
    environment = settings.child_environment(
        DATABASE_URL="postgresql://nobody@localhost/none",
        BROKER_URL="redis://localhost",
        SALUN_SWEEP_SECONDS=seconds,
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, (line.strip() for line in process.stdout)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("when", ["begun", "ended"])
def test_it_ends_after_the_sweep_at_hand(number: signal.Signals, when: str) -> None:
    with sweeper(PROGRAM, "1") as (process, lines):
        before = [next(lines)]
        if when == "ended":
            before.append(next(lines))
        process.send_signal(number)
        assert [*before, *lines] == ["begun", "ended"]
        assert process.wait(20) == 0


def test_a_fault_does_not_end_it() -> None:
    with sweeper(FAULT, "0.1") as (process, lines):
        assert [next(lines) for _ in range(4)] == ["begun", "ended"] * 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
