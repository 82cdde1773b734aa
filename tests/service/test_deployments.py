"""Requests wait for those who said that they serve the model, on a real PostgreSQL."""

import concurrent.futures
import datetime
import types
import uuid
from typing import cast

import pytest
import sqlalchemy as sa

from benchmarks import bare_models
from service import (
    api_keys,
    database,
    deadlines,
    deployments,
    errors,
    forget_requests,
    jobs,
    models,
    publication,
    queue,
    request_views,
    tables,
    versions,
)
from tests.service import duties
from worker import leases, pipeline

pytestmark = pytest.mark.usefixtures("empty")
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture
def caller() -> api_keys.Caller:
    return bare_models.caller()


@pytest.fixture
def model() -> str:
    return duties.new_model(bare_models.generous(0.0))


def reports(model: str, deployment: str, number: int) -> bool:
    with database.transaction() as session:
        row = models.by_name(session, model)
        version = versions.by_number(session, row, number)
        return publication.note_deployment(
            session, deployment, row, version, version.manifest_digest, NOW
        )


def remove(model: str, deployment: str) -> None:
    with database.transaction() as session:
        publication.remove_deployment(session, "test", models.by_name(session, model), deployment)


def serve_next() -> int:
    claimed = jobs.claim(queue.UNLEARNING, "test")
    assert claimed is not None
    return bare_models.publish(claimed)


def state(request_id: uuid.UUID) -> tuple[str, str, int | None, list[str]]:
    with database.transaction() as session:
        row = session.get_one(tables.ForgetRequest, request_id)
        seen = request_views.view(session, row)
        waits_for = list(seen.waits_for_deployments)
        if waits_for:
            assert seen.expected_completion_at is None
        return row.status, row.stage, row.result_version, waits_for


def events(request_id: uuid.UUID) -> list[str]:
    with database.transaction() as session:
        found = session.scalars(
            sa.select(tables.Event)
            .where(tables.Event.subject_id == request_id)
            .order_by(tables.Event.id)
        )
        return [one.data.get("stage", one.type) for one in found]


def test_a_request_is_complete_when_the_last_deployment_has_pulled(
    caller: api_keys.Caller, model: str
) -> None:
    assert reports(model, "edge", 1)
    assert reports(model, "cloud", 1)
    request = bare_models.submit(caller, model, bare_models.samples("s1", "s2"))
    assert serve_next() == 2
    assert state(request) == ("in_progress", "propagating", 2, ["cloud", "edge"])
    assert not reports(model, "edge", 1)
    assert reports(model, "cloud", 2)
    assert state(request) == ("in_progress", "propagating", 2, ["edge"])
    assert reports(model, "edge", 2)
    assert state(request) == ("completed", "done", 2, [])
    assert duties.request(request).completed_at is not None
    assert events(request)[-2:] == ["propagating", "completed"]


def test_the_duty_goes_on_while_a_deployment_lags(caller: api_keys.Caller, model: str) -> None:
    """It is alarmed, cannot be withdrawn, and the erasure counts: the proof window runs."""
    reports(model, "edge", 1)
    request = bare_models.submit(caller, model, bare_models.samples("s1"))
    serve_next()
    with pytest.raises(errors.Conflict), database.transaction() as session:
        forget_requests.withdraw(session, "test", request)
    duties.shift(request, 40)
    with database.transaction() as session:
        assert deadlines.alarm(session) == 1
    assert duties.request(request).reason == "deadline_risk"
    with database.transaction() as session:
        erased = session.scalars(sa.select(tables.Erasure)).one()
        assert erased.erased_at is not None


def test_a_later_version_will_do_and_a_forgotten_line_will_not(
    caller: api_keys.Caller, model: str
) -> None:
    reports(model, "edge", 1)
    first = bare_models.submit(caller, model, bare_models.samples("s1"))
    serve_next()
    second = bare_models.submit(caller, model, bare_models.samples("s2"))
    serve_next()
    reports(model, "edge", 2)
    assert state(first)[:2] == ("completed", "done")
    assert state(second) == ("in_progress", "propagating", 3, ["edge"])
    third = bare_models.submit(caller, model, bare_models.samples("s2"))
    assert state(third) == ("in_progress", "propagating", 3, ["edge"])
    known = bare_models.submit(caller, model, bare_models.samples("s1"))
    assert state(known)[:3] == ("completed", "done", 2)
    reports(model, "edge", 3)
    assert {state(one)[0] for one in (second, third)} == {"completed"}


def test_who_serves_it_no_more_is_removed(caller: api_keys.Caller, model: str) -> None:
    reports(model, "edge", 1)
    request = bare_models.submit(caller, model, bare_models.samples("s1"))
    serve_next()
    with database.transaction() as session:
        listed = deployments.listing(session, models.by_name(session, model))
    assert [(one.deployment, one.version, one.up_to_date) for one in listed] == [("edge", 1, False)]
    with pytest.raises(errors.NotFound) as refused:
        remove(model, "nobody")
    assert refused.value.code == "deployment-not-found"
    remove(model, "edge")
    assert state(request)[:2] == ("completed", "done")


def test_other_models_wait_for_nothing(caller: api_keys.Caller, model: str) -> None:
    other = duties.new_model(bare_models.generous(0.0), "other")
    reports(other, "edge", 1)
    request = bare_models.submit(caller, model, bare_models.samples("s1"))
    serve_next()
    assert state(request)[:2] == ("completed", "done")


def test_a_report_and_a_publication_at_once_strand_nobody(
    caller: api_keys.Caller, model: str
) -> None:
    """Whichever comes first, one of the two completes the request."""
    reports(model, "edge", 1)
    for number in range(10):
        request = bare_models.submit(caller, model, bare_models.samples(f"s{number}"))
        claimed = jobs.claim(queue.UNLEARNING, "test")
        assert claimed is not None
        outcome = bare_models.outcome(claimed)
        with concurrent.futures.ThreadPoolExecutor(2) as beside:
            published = beside.submit(publication.publish, claimed, outcome)
            pulled = beside.submit(remove, model, "edge")
            published.result()
            pulled.result()
        assert state(request)[0] == "completed"
        reports(model, "edge", 2 + number)


def test_a_run_that_was_overtaken_tells_no_stage(caller: api_keys.Caller, model: str) -> None:
    """It would take the request out of those that the next report completes."""
    reports(model, "edge", 1)
    request = bare_models.submit(caller, model, bare_models.samples("s1"))
    claimed = jobs.claim(queue.UNLEARNING, "test")
    assert claimed is not None
    bare_models.publish(claimed)
    late = cast("leases.Lease", types.SimpleNamespace(claimed=claimed, check=lambda: None))
    with pytest.raises(errors.LeaseLost):
        pipeline._tell(late, pipeline.VERIFY)
    reports(model, "edge", 2)
    assert state(request)[:2] == ("completed", "done")
