"""How audits end on a real PostgreSQL and store: nothing of their retrained nets stays."""

import uuid
from collections.abc import Callable

import pytest

from service import cancellation, database, destruction, jobs, queue, storage
from worker import endings

pytestmark = pytest.mark.usefixtures("empty")
NETS = ("retraining/retrained", "retraining/retrained_again/checkpoint")


def claim() -> jobs.Claim:
    claimed = jobs.claim(queue.UNLEARNING, "me")
    assert claimed is not None
    assert claimed.kind == jobs.AUDIT
    return claimed


@pytest.fixture
def claimed() -> jobs.Claim:
    """An audit that has made nets and measured one."""
    with database.transaction() as session:
        jobs.enqueue(session, jobs.AUDIT, line="audit", subject_id=uuid.uuid4())
    found = claim()
    for name in (*NETS, "comparing/version"):
        stored = storage.put([f"{found.job_id} {name}".encode()], destruction.arriving)
        jobs.commit_step(found, name, stored.digest, 1.0)
    return found


def state(claimed: jobs.Claim) -> tuple[str, set[str]]:
    """The status of a job, and which of its steps are in the store."""
    with database.transaction() as session:
        status = jobs.by_id(session, claimed.job_id).status
    steps = jobs.steps(claimed.job_id)
    return status, {name for name, step in steps.items() if storage.exists(step.artifact_digest)}


def stop(claimed: jobs.Claim) -> None:
    with database.transaction() as session:
        cancellation.cancel(session, "somebody", claimed.job_id)


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (lambda claimed: endings.fail(claimed, "worker_died", "three times"), "failed"),
        (lambda claimed: endings.cancel(claimed), "cancelled"),
    ],
)
def test_an_audit_that_ends_leaves_no_retrained_net(
    claimed: jobs.Claim, end: Callable[[jobs.Claim], None], status: str
) -> None:
    assert state(claimed) == ("running", {*NETS, "comparing/version"})
    end(claimed)
    assert state(claimed) == (status, {"comparing/version"})


@pytest.mark.parametrize(
    "interrupt",
    [endings.give_back, lambda claimed: endings.retry_or_fail(claimed, OSError(), 0.0)],
)
def test_an_interrupted_audit_waits_with_its_nets_until_somebody_stops_it(
    claimed: jobs.Claim, interrupt: Callable[[jobs.Claim], None]
) -> None:
    interrupt(claimed)
    assert state(claimed) == ("queued", {*NETS, "comparing/version"})
    stop(claimed)
    assert state(claimed) == ("cancelled", {"comparing/version"})


@pytest.mark.parametrize(
    "interrupt",
    [endings.give_back, lambda claimed: endings.retry_or_fail(claimed, OSError(), 0.0)],
)
def test_what_was_to_be_stopped_does_not_wait_again(
    claimed: jobs.Claim, interrupt: Callable[[jobs.Claim], None]
) -> None:
    stop(claimed)
    interrupt(claimed)
    assert state(claimed) == ("cancelled", {"comparing/version"})
