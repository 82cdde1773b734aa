"""One month, its extension, its pauses and its alarms, on a real PostgreSQL."""

import datetime
import uuid
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from benchmarks import bare_models
from service import (
    api_keys,
    database,
    deadlines,
    errors,
    forget_requests,
    jobs,
    models,
    publication,
    queue,
    tables,
)
from tests.service import duties

pytestmark = pytest.mark.usefixtures("empty")
DAY = datetime.timedelta(days=1)


@pytest.fixture
def caller() -> api_keys.Caller:
    return bare_models.caller()


@pytest.fixture
def model() -> str:
    return duties.new_model(duties.HOUR)


def change(request_id: uuid.UUID, how: Callable[..., None], *more: object) -> None:
    with database.transaction() as session:
        held = forget_requests.by_id(session, request_id, lock=True)
        how(session, "test", held, *more, "a reason")


def received(request_id: uuid.UUID, moment: str) -> None:
    """Pretend that a request came at that moment, as the database reckons its due date."""
    with database.transaction() as session:
        session.execute(
            sa.text(
                "UPDATE forget_request SET received_at = :at, due_at = "
                "timezone('UTC', timezone('UTC', CAST(:at AS timestamptz)) + interval '1 month') "
                "WHERE id = :id"
            ),
            {"at": moment, "id": request_id},
        )


def told(request_id: uuid.UUID, kind: str) -> list[dict[str, object]]:
    with database.transaction() as session:
        found = sa.select(tables.Event.data).where(
            tables.Event.subject_id == request_id, tables.Event.type == kind
        )
        return list(session.scalars(found.order_by(tables.Event.id)))


@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles", "Pacific/Kiritimati"])
def test_a_request_is_due_one_calendar_month_after_receipt_wherever_the_server_is(
    caller: api_keys.Caller, model: str, zone: str
) -> None:
    with database.transaction() as session:
        session.execute(sa.text(f"SET LOCAL TIME ZONE '{zone}'"))
        demand = bare_models.demand(model, bare_models.samples("s1"))
        request_id = forget_requests.submit(session, caller, demand).id
    got = duties.request(request_id)
    due, start = got.due_at.astimezone(datetime.UTC), got.received_at.astimezone(datetime.UTC)
    assert (due.year * 12 + due.month) - (start.year * 12 + start.month) == 1
    assert due.day <= start.day
    assert due.day == start.day or (due + DAY).day == 1


def test_days_have_24_hours_wherever_the_server_is(empty: sa.Engine) -> None:
    """An hour is missing, or twice there, in zones that change their clocks."""
    url = empty.url.update_query_dict({"options": "-c timezone=America/New_York -c geqo=off"})
    engine = database.engine_for(url.render_as_string(hide_password=False))
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SHOW timezone")) == "UTC"
        assert connection.scalar(sa.text("SHOW geqo")) == "off"
    engine.dispose()


@pytest.mark.parametrize(
    ("came", "months", "due"),
    [
        ("2099-01-31T10:00:00Z", 1, "2099-03-31T10:00:00Z"),
        ("2099-01-31T10:00:00Z", 2, "2099-04-30T10:00:00Z"),
        ("2099-11-30T23:59:59Z", 2, "2100-02-28T23:59:59Z"),
        ("2095-12-31T00:00:00Z", 1, "2096-02-29T00:00:00Z"),
    ],
)
def test_an_extension_counts_months_from_receipt_and_clamps_month_ends(
    caller: api_keys.Caller, model: str, came: str, months: int, due: str
) -> None:
    request_id = bare_models.submit(caller, model, bare_models.samples("s1"))
    received(request_id, came)
    change(request_id, deadlines.extend, months)
    got = duties.request(request_id)
    assert got.due_at == datetime.datetime.fromisoformat(due)
    assert got.extended_months == months
    assert told(request_id, "decided") == [{"decision": "extend", "reason": "a reason"}]
    with pytest.raises(errors.Conflict) as refused:
        change(request_id, deadlines.extend, 1)
    assert refused.value.code == "already-extended"


def test_nothing_is_extended_after_its_month(caller: api_keys.Caller, model: str) -> None:
    request_id = bare_models.submit(caller, model, bare_models.samples("s1"))
    duties.shift(request_id, 32)
    with pytest.raises(errors.Conflict) as refused:
        change(request_id, deadlines.extend, 2)
    assert refused.value.code == "deadline-passed"


def test_an_extension_lets_more_urgent_jobs_go_first(caller: api_keys.Caller) -> None:
    at_once = duties.new_model({}, "second")
    first = bare_models.submit(caller, at_once, bare_models.samples("s1"))
    second = bare_models.submit(caller, at_once, bare_models.samples("s2"))
    change(first, deadlines.extend, 2)
    waiting = duties.queued(at_once)
    assert [job.subject_id for job in waiting] == [
        duties.batches_of(second)[0].id,
        duties.batches_of(first)[0].id,
    ]
    assert waiting[1].due_at == duties.request(first).due_at


def test_who_follows_a_sealed_batch_makes_its_job_as_urgent_as_itself(
    caller: api_keys.Caller,
) -> None:
    at_once = duties.new_model({}, "second")
    first = bare_models.submit(caller, at_once, bare_models.samples("s1"))
    change(first, deadlines.extend, 2)
    follower = bare_models.submit(caller, at_once, bare_models.samples("s1"))
    (waiting,) = duties.queued(at_once)
    assert waiting.due_at == duties.request(follower).due_at < duties.request(first).due_at


def test_an_extension_does_not_wait_for_a_job_that_is_about_to_end(
    caller: api_keys.Caller,
) -> None:
    request = bare_models.submit(caller, duties.new_model({}, "second"), bare_models.samples("s1"))
    claimed = jobs.claim(queue.UNLEARNING, "test")
    assert claimed is not None
    with database.transaction() as ending:
        job = jobs.hold(ending, claimed)
        with database.transaction() as session:
            session.execute(sa.text("SET LOCAL lock_timeout = '2s'"))
            held = forget_requests.by_id(session, request, lock=True)
            deadlines.extend(session, "test", held, 2, "a reason")
        publication.close_job(ending, job, "failed", "job_failed", {"code": "test"})
    ended = duties.request(request)
    assert (ended.status, ended.extended_months) == ("action_required", 2)


def test_while_the_clock_stands_still_nothing_is_erased(
    caller: api_keys.Caller, model: str
) -> None:
    request_id = bare_models.submit(caller, model, bare_models.samples("s1", "s2"))
    batch = duties.batches_of(request_id)[0]
    before = duties.request(request_id).due_at
    change(request_id, deadlines.pause)
    assert duties.batches_of(request_id) == []
    assert duties.erased_by(batch.id) == []
    paused = duties.request(request_id)
    assert (paused.status, paused.reason) == ("pending", "identity_unproven")
    with pytest.raises(errors.Conflict) as refused:
        change(request_id, deadlines.pause)
    assert refused.value.code == "clock-paused"

    with database.transaction() as session:
        session.execute(
            sa.text("UPDATE forget_request SET paused_at = paused_at - interval '5 days'")
        )
    change(request_id, deadlines.resume)
    resumed = duties.request(request_id)
    late = resumed.due_at - before
    assert 5 * DAY <= late < 5 * DAY + datetime.timedelta(minutes=5)
    assert (resumed.status, resumed.stage, resumed.reason) == ("pending", "queued", None)
    assert resumed.matched == 2
    assert duties.erased_by(duties.batches_of(request_id)[0].id) == ["s1", "s2"]
    with pytest.raises(errors.Conflict) as refused:
        change(request_id, deadlines.resume)
    assert refused.value.code == "clock-running"


def test_the_clock_goes_on_where_others_used_up_the_budget(caller: api_keys.Caller) -> None:
    policy = {**bare_models.generous(3600.0), "max_forget_share": 0.1}
    model = duties.new_model(policy, "tight")
    request_id = bare_models.submit(caller, model, bare_models.samples("s1", "s2"))
    change(request_id, deadlines.pause)
    many = [f"s{n}" for n in range(10, 10 + duties.SAMPLES // 10)]
    bare_models.submit(caller, model, bare_models.samples(*many))
    change(request_id, deadlines.resume)
    held = duties.request(request_id)
    told = (held.status, held.stage, held.reason, held.paused_at)
    assert told == ("action_required", "awaiting_approval", "budget_exceeded", None)
    with database.transaction() as session:
        row = models.by_name(session, model)
        row.policy = {**row.policy, "max_forget_share": 0.2}
    with database.transaction() as session:
        other = api_keys.Caller(uuid.uuid4(), "second", frozenset({"admin"}))
        request = forget_requests.by_id(session, request_id, lock=True)
        forget_requests.approve(session, other, request, "enough")
    assert duties.request(request_id).status == "pending"
    assert {"s1", "s2"} <= set(duties.erased_by(duties.batches_of(request_id)[0].id))


def test_a_proven_identity_and_a_sealed_batch_keep_the_clock_running(
    caller: api_keys.Caller, model: str
) -> None:
    proven = {"identity_verified": True, "method": "account_login"}
    verified = bare_models.submit(caller, model, bare_models.samples("s1"), attestation=proven)
    with pytest.raises(errors.Conflict) as refused:
        change(verified, deadlines.pause)
    assert refused.value.code == "identity-verified"

    sealed = bare_models.submit(caller, duties.new_model({}, "second"), bare_models.samples("s1"))
    with pytest.raises(errors.Conflict) as refused:
        change(sealed, deadlines.pause)
    assert refused.value.code == "batch-sealed"


def test_each_alarm_is_told_once_and_the_last_ones_are_a_risk(
    caller: api_keys.Caller, model: str
) -> None:
    request_id = bare_models.submit(caller, model, bare_models.samples("s1"))
    other = bare_models.submit(caller, model, bare_models.samples("s2"))
    change(other, deadlines.pause)
    found = duties.request(request_id)
    month = (found.due_at - found.received_at) / DAY
    gone = 0.0
    seen = []
    for share in (0.3, 0.55, 0.85, 0.96, 1.05):
        for one in (request_id, other):
            duties.shift(one, (share - gone) * month)
        gone = share
        for _ in range(2):
            with database.transaction() as session:
                deadlines.alarm(session)
        seen.append([event["percent"] for event in told(request_id, "deadline_alarm")])
    assert seen[0] == []
    assert seen[-1] == [50, 80, 95, 100]
    assert [len(found) for found in seen] == [0, 1, 2, 3, 4]
    assert duties.request(request_id).reason == "deadline_risk"
    assert told(other, "deadline_alarm") == []  # its clock stands still
