"""When a request may be done, as its sender is told."""

import datetime
import uuid

import pytest
import sqlalchemy as sa

from benchmarks import bare_models
from service import api_keys, database, forget_requests, jobs, pace, queue, request_views, tables
from tests.service import duties

pytestmark = pytest.mark.usefixtures("empty")
NOON = datetime.datetime(2099, 6, 1, 12, tzinfo=datetime.UTC)
MINUTE = datetime.timedelta(minutes=1)


@pytest.mark.parametrize(
    ("runs", "minutes_gone", "end"),
    [
        (1, 0, 5),
        (3, 0, 15),
        (3, 15, 15),  # to the minute
        (3, 16, 20),  # late: one more run
        (1, 33, 35),
    ],
)
def test_what_is_late_is_expected_in_steps_of_a_run(runs: int, minutes_gone: int, end: int) -> None:
    got = pace.expected_end(NOON, runs, 300.0, NOON + minutes_gone * MINUTE)
    assert got == NOON + end * MINUTE


def expected(request_id: uuid.UUID) -> datetime.datetime | None:
    with database.transaction() as session:
        request = forget_requests.by_id(session, request_id)
        return request_views.view(session, request).expected_completion_at


def is_near(got: datetime.datetime | None, wanted: datetime.datetime) -> bool:
    """Run times are measured, so not to the microsecond."""
    return got is not None and abs(got - wanted) < datetime.timedelta(seconds=1)


def opened_at(request_id: uuid.UUID) -> datetime.datetime:
    return duties.batches_of(request_id)[0].opened_at


@pytest.fixture
def caller() -> api_keys.Caller:
    return bare_models.caller()


def test_the_expectation_follows_the_batch_and_the_job(caller: api_keys.Caller) -> None:
    """Jobs of this model take 10 minutes, batches wait for an hour."""
    model = duties.new_model(duties.HOUR)
    duties.finished_job(model, 600)
    request = bare_models.submit(caller, model, bare_models.samples("s1"))
    assert is_near(expected(request), opened_at(request) + 70 * MINUTE)

    bare_models.flush(model)
    sealed_at = duties.batches_of(request)[0].sealed_at
    assert sealed_at is not None
    assert is_near(expected(request), sealed_at + 10 * MINUTE)

    later = bare_models.submit(caller, model, bare_models.samples("s2"))
    assert is_near(expected(later), opened_at(later) + 80 * MINUTE)  # the first goes before

    claimed = jobs.claim(queue.UNLEARNING, "test")
    assert claimed is not None
    jobs.heartbeat(claimed, jobs.Progress("unlearning", 1, 10, eta_seconds=90.0))
    got = expected(request)
    assert got is not None
    with database.transaction() as session:
        now = database.now(session)
    assert abs((got - now).total_seconds() - 90) < 5


def test_a_batch_that_must_begin_earlier_is_expected_earlier(caller: api_keys.Caller) -> None:
    """A window of a year: the due date, less three attempts of 10 minutes and the margin."""
    year = {"batch_window_seconds": 365 * 86_400.0, "deadline_margin_seconds": 86_400.0}
    model = duties.new_model(year)
    duties.finished_job(model, 600)
    request = bare_models.submit(caller, model, bare_models.samples("s1"))
    due = duties.request(request).due_at
    assert is_near(expected(request), due - datetime.timedelta(days=1) - 20 * MINUTE)


def test_nothing_is_expected_while_a_person_is_asked(caller: api_keys.Caller) -> None:
    model = duties.new_model({"budget": {"daily_share": 0.001}})
    held = bare_models.submit(caller, model, bare_models.samples("s1"))
    assert expected(held) is None
    with database.transaction() as session:
        forget_requests.withdraw(session, "test", held)
        ended = session.scalars(sa.select(tables.ForgetRequest.completed_at)).one()
    assert expected(held) == ended is not None
