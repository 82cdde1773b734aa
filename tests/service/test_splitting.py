"""Halves of a failed batch, on a real PostgreSQL."""

import uuid

import pytest
import sqlalchemy as sa

from benchmarks import bare_models
from service import (
    api_keys,
    batches,
    database,
    forget_requests,
    members,
    publication,
    queue,
    sealing,
    splitting,
    tables,
)
from service import jobs as service_jobs
from tests.service import duties

pytestmark = pytest.mark.usefixtures("empty")


@pytest.fixture
def caller() -> api_keys.Caller:
    return bare_models.caller()


def flush(model: str) -> uuid.UUID:
    with database.transaction() as session:
        row = session.scalars(sa.select(tables.Model).where(tables.Model.name == model)).one()
        return sealing.flush(session, "test", row)[0].id


def fail_until_nothing_is_queued(bad: set[uuid.UUID]) -> int:
    """Run the queued jobs; those that serve a request of ``bad`` fail. Returns how many ran."""
    ran = 0
    while (claimed := service_jobs.claim(queue.UNLEARNING, "test")) is not None:
        ran += 1
        with database.transaction() as session:
            job = service_jobs.hold(session, claimed)
            served = {one.id for one in members.requests(session, claimed.subject_id)}
            if served & bad:
                publication.close_job(session, job, "failed", "job_failed", {}, divisible=True)
            else:
                batch = session.get_one(tables.Batch, claimed.subject_id)
                batch.state = "completed"
                for request in members.requests(session, batch.id):
                    request.status = "completed"
                service_jobs.finish(session, job, "succeeded", None)
    return ran


def test_one_of_many_is_found_in_logarithmically_many_jobs(caller: api_keys.Caller) -> None:
    """Of 16 requests one is bad: 1 + 2 · log2(16) = 9 jobs, and 15 are served."""
    model = duties.new_model(duties.HOUR)
    requests = [bare_models.submit(caller, model, bare_models.samples(f"s{n}")) for n in range(16)]
    flush(model)
    assert fail_until_nothing_is_queued({requests[11]}) == 9
    states = [duties.request(one).status for one in requests]
    assert states == ["completed"] * 11 + ["action_required"] + ["completed"] * 4
    blocked = duties.batches_of(requests[11])[-1]
    assert duties.erased_by(blocked.id) == ["s11"]


def test_what_shares_a_sample_stays_together(caller: api_keys.Caller) -> None:
    model = duties.new_model(duties.HOUR)
    pair = [
        bare_models.submit(caller, model, bare_models.samples("s1", "s2")),
        bare_models.submit(caller, model, bare_models.samples("s2", "s3")),
    ]
    alone = bare_models.submit(caller, model, bare_models.samples("s4"))
    whole = flush(model)
    with database.transaction() as session:
        assert splitting.split(session, batches.by_id(session, whole))
    halves = [duties.batches_of(one)[-1].id for one in (*pair, alone)]
    assert halves[0] == halves[1] != halves[2]
    assert duties.erased_by(halves[0]) == ["s1", "s2", "s3"]
    assert duties.erased_by(halves[2]) == ["s4"]
    assert duties.erased_by(whole) == []
    with database.transaction() as session:
        assert not splitting.split(session, batches.by_id(session, halves[0]))


def test_splitting_ends_where_the_policy_says(caller: api_keys.Caller) -> None:
    """When all are bad, four splits leave five batches that need a person, not sixteen."""
    model = duties.new_model({**duties.HOUR, "max_batch_splits": 4})
    requests = [bare_models.submit(caller, model, bare_models.samples(f"s{n}")) for n in range(16)]
    flush(model)
    assert fail_until_nothing_is_queued(set(requests)) == 9
    assert {duties.request(one).status for one in requests} == {"action_required"}
    assert len({duties.batches_of(one)[-1].id for one in requests}) == 5


def test_a_person_can_try_what_was_found_again(caller: api_keys.Caller) -> None:
    model = duties.new_model(duties.HOUR)
    requests = [bare_models.submit(caller, model, bare_models.samples(f"s{n}")) for n in range(2)]
    flush(model)
    fail_until_nothing_is_queued({requests[1]})
    with database.transaction() as session:
        held = forget_requests.by_id(session, requests[1], lock=True)
        forget_requests.approve(session, caller, held, "mended")
    assert fail_until_nothing_is_queued(set()) == 1
    assert duties.request(requests[1]).status == "completed"
