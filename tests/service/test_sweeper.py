"""The sweeper's process ends when it is told to, after the sweep at hand."""

import signal
import subprocess
import sys

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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("when", ["begun", "ended"])
def test_it_ends_after_the_sweep_at_hand(number: signal.Signals, when: str) -> None:
    environment = settings.child_environment(
        DATABASE_URL="postgresql://nobody@localhost/none",
        BROKER_URL="redis://localhost",
        SALUN_SWEEP_SECONDS="1",
    )
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = iter(process.stdout)
        before = [next(lines).strip()]
        if when == "ended":
            before.append(next(lines).strip())
        process.send_signal(number)
        assert [*before, *(line.strip() for line in lines)] == ["begun", "ended"]
        assert process.wait(20) == 0


def test_a_fault_does_not_end_it() -> None:
    environment = settings.child_environment(
        DATABASE_URL="postgresql://nobody@localhost/none",
        BROKER_URL="redis://localhost",
        SALUN_SWEEP_SECONDS="0.1",
    )
    command = [sys.executable, "-c", FAULT]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = iter(process.stdout)
        assert [next(lines).strip() for _ in range(4)] == ["begun", "ended"] * 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
