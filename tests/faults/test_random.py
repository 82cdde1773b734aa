"""Faults by a plan, at random moments, on the whole stack: nothing is lost, nothing is doubled."""

import dataclasses

from benchmarks import fault_load, fault_plan, faults
from tests import conftest, material
from tests.faults.conftest import Faulted

INJECTIONS = 20  # `make bench-faults` has 500


def test_a_plan_is_its_seed() -> None:
    def of(seed: int) -> list[fault_plan.Injection]:
        return fault_plan.plan(seed, 500, longest_wait=3.0, longest_pause=7.0)

    assert of(0) == of(0)
    assert of(0) != of(1)
    assert of(0)[:40] == fault_plan.plan(0, 500, longest_wait=3.0, longest_pause=7.0)[:40]
    counts = fault_plan.counted(of(0))
    assert sum(counts.values()) == 500
    assert min(counts.values()) > 0


def test_random_faults_lose_nothing_and_double_nothing(faulted: Faulted) -> None:
    running = faulted.api.running
    models = [faulted.model(max_forget_share=0.99) for _ in range(3)]
    load = fault_load.Load(running, models, material.train_ids(), faults.QUICK)
    plan = fault_plan.plan(
        INJECTIONS, INJECTIONS, longest_wait=2.0, longest_pause=conftest.LEASE_SECONDS + 2
    )
    outcome = faults.run(running, faulted.fleet, load, plan, INJECTIONS, conftest.LEASE_SECONDS)
    assert sum(outcome.injected.values()) == INJECTIONS
    assert (outcome.account.lost, outcome.account.doubled) == (0, 0), dataclasses.asdict(outcome)
    assert outcome.account.found["succeeded"] == INJECTIONS
    assert faulted.unknown_files() == set()
