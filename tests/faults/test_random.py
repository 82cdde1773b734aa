"""Faults by a plan, at random moments, on the whole stack: nothing is lost, nothing is doubled."""

import dataclasses

import pytest

from benchmarks import fault_load, fault_plan, faults
from tests import conftest, material
from tests.faults.conftest import Faulted


def test_a_plan_is_its_seed() -> None:
    def of(seed: int) -> list[fault_plan.Injection]:
        return fault_plan.plan(seed, 500, longest_wait=3.0, longest_pause=7.0)

    assert of(0) == of(0)
    assert of(0) != of(1)
    assert of(0)[:40] == fault_plan.plan(0, 500, longest_wait=3.0, longest_pause=7.0)[:40]
    counts = fault_plan.counted(of(0))
    assert sum(counts.values()) == 500
    assert min(counts.values()) > 0


@pytest.mark.parametrize("injections", [15, pytest.param(60, marks=pytest.mark.faults_full)])
def test_random_faults_lose_nothing_and_double_nothing(faulted: Faulted, injections: int) -> None:
    running = faulted.api.running
    models = [faulted.model(max_forget_share=0.99) for _ in range(3)]
    load = fault_load.Load(running, models, material.train_ids(), faults.QUICK)
    plan = fault_plan.plan(
        injections, injections, longest_wait=2.0, longest_pause=conftest.LEASE_SECONDS + 2
    )
    outcome = faults.run(running, faulted.fleet, load, plan, injections, conftest.LEASE_SECONDS)
    assert sum(outcome.injected.values()) == injections
    assert (outcome.account.lost, outcome.account.doubled) == (0, 0), dataclasses.asdict(outcome)
    assert outcome.account.found["succeeded"] == injections
