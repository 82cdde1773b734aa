"""Claims, leases and fences on a real PostgreSQL."""

import concurrent.futures
import datetime
import time
import uuid
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from benchmarks import bare_models
from client.local import stack
from service import database, destruction, errors, jobs, queue, settings, sweeping, tables, telling

pytestmark = pytest.mark.usefixtures("empty")


def enqueue(line: str | None = None) -> uuid.UUID:
    with database.transaction() as session:
        job = jobs.enqueue(
            session, jobs.UNLEARNING, line=line or uuid.uuid4().hex, subject_id=uuid.uuid4()
        )
        return job.id


def status(job_id: uuid.UUID) -> str:
    with database.transaction() as session:
        return jobs.by_id(session, job_id).status


def claim(owner: str = "me") -> jobs.Claim:
    claimed = jobs.claim(queue.UNLEARNING, owner)
    assert claimed is not None
    return claimed


def milliseconds_of_silence(session: orm.Session) -> int:
    """After so long without a statement the server ends the transaction."""
    name = "idle_in_transaction_session_timeout"
    found = session.scalar(
        sa.text("SELECT setting FROM pg_settings WHERE name = :name"), {"name": name}
    )
    return int(found)


def test_who_is_frozen_in_a_transaction_loses_the_job_a_lease_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever it has locked: nobody could take the job for as long as it sleeps."""
    lease, seen = 1000 * settings.load().lease_seconds, []
    tell = telling.event

    def event(session: orm.Session, subject_id: uuid.UUID, what: str, **data: object) -> None:
        seen.append((what, milliseconds_of_silence(session)))
        tell(session, subject_id, what, **data)

    monkeypatch.setattr(telling, "event", event)
    enqueue()
    claimed = claim()
    assert seen == [("queued", 0), ("claimed", lease)]
    with database.transaction() as session:
        jobs.check(session, claimed)
        assert milliseconds_of_silence(session) == lease
    with database.transaction() as session:
        jobs.hold(session, claimed)
        assert milliseconds_of_silence(session) == lease
    with database.transaction() as session:
        jobs.hold(session, claimed, patience=database.A_DAY)
        assert milliseconds_of_silence(session) == 1000 * database.A_DAY
    with database.transaction() as session:
        destruction.destroy(session)
        assert milliseconds_of_silence(session) == 1000 * database.A_DAY


def test_of_many_claimers_exactly_one_wins() -> None:
    job_id = enqueue()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda n: jobs.claim(queue.UNLEARNING, str(n)), range(64)))
    assert [item.job_id for item in found if item is not None] == [job_id]


def test_one_line_runs_one_job_at_a_time() -> None:
    enqueue("model:a")
    enqueue("model:a")
    other = enqueue("model:b")
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda n: jobs.claim(queue.UNLEARNING, str(n)), range(64)))
    won = [item for item in found if item is not None]
    assert len(won) == 2
    assert other in {item.job_id for item in won}


def test_the_earliest_deadline_goes_first() -> None:
    late, early = enqueue(), enqueue()
    with database.transaction() as session:
        session.execute(
            sa.update(tables.Job)
            .where(tables.Job.id == early)
            .values(due_at=sa.text("now() - interval '1 day'"))
        )
    assert [claim().job_id, claim().job_id] == [early, late]


def test_an_audit_waits_for_unlearning_that_comes_later_and_knows_when_it_is_outranked() -> None:
    with database.transaction() as session:
        audit = jobs.enqueue(session, jobs.AUDIT, line="audit", subject_id=uuid.uuid4()).id
        later = jobs.enqueue(session, jobs.AUDIT, line="other", subject_id=uuid.uuid4()).id
    running = claim()
    assert running.job_id == audit
    assert not jobs.outranked(running)
    in_two_months = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=61)
    with database.transaction() as session:
        unlearning = jobs.enqueue(
            session, jobs.UNLEARNING, line="model", subject_id=uuid.uuid4(), due_at=in_two_months
        ).id
        ingestion = jobs.enqueue(session, jobs.INGESTION, line="set", subject_id=uuid.uuid4()).id
    assert jobs.outranked(running)
    assert claim().job_id == unlearning
    enqueue("model")  # not claimable while its line is busy: nothing to make way for
    assert not jobs.outranked(running)
    assert claim().job_id == later
    assert status(ingestion) == "queued"


def test_an_expired_lease_is_taken_over_and_the_zombie_writes_nothing() -> None:
    job_id = enqueue()
    zombie = claim("zombie")
    assert jobs.claim(queue.UNLEARNING, "second") is None
    time.sleep(2.1)  # the lease of this database is 2 s
    second = claim("second")
    assert (second.job_id, second.attempt) == (job_id, 2)
    assert second.fence > zombie.fence
    with pytest.raises(errors.LeaseLost):
        jobs.heartbeat(zombie, jobs.Progress("unlearning"))
    with pytest.raises(errors.LeaseLost):
        jobs.commit_step(zombie, "unlearning", "0" * 64, 1.0)
    with database.transaction() as session, pytest.raises(errors.LeaseLost):
        jobs.hold(session, zombie)
    assert jobs.heartbeat(second, jobs.Progress("unlearning", 1, 2)) is False
    assert jobs.steps(job_id) == {}


def test_a_heartbeat_keeps_the_lease_and_carries_the_cancellation() -> None:
    job_id = enqueue()
    claimed = claim()
    for _ in range(3):
        time.sleep(1)
        assert jobs.heartbeat(claimed, jobs.Progress("unlearning")) is False
        assert jobs.claim(queue.UNLEARNING, "other") is None
    with database.transaction() as session:
        jobs.request_cancel(session, job_id, "tester")
    assert jobs.heartbeat(claimed, jobs.Progress("unlearning")) is True


def test_inputs_are_pinned_by_the_first_claim() -> None:
    enqueue()
    claimed = claim()
    assert jobs.pin_inputs(claimed, {"base_version": 1}) == {"base_version": 1}
    assert jobs.pin_inputs(claimed, {"base_version": 2}) == {"base_version": 1}


def test_a_requeued_job_waits_for_its_delay_and_may_be_claimed_again() -> None:
    job_id = enqueue()
    claimed = claim()
    with database.transaction() as session:
        jobs.requeue(session, jobs.hold(session, claimed), delay_seconds=1.0)
    assert status(job_id) == "queued"
    assert jobs.claim(queue.UNLEARNING, "early") is None
    time.sleep(1.1)
    assert claim().attempt == 2


def test_a_more_urgent_job_of_another_queue_goes_first_on_a_line() -> None:
    """A disposal is due at once: the unlearning behind it waits, or it would never get the line."""
    with database.transaction() as session:
        for kind, days in ((jobs.UNLEARNING, 30), (jobs.DISPOSAL, 0)):
            due_at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
            jobs.enqueue(session, kind, line="model:a", subject_id=uuid.uuid4(), due_at=due_at)
    assert jobs.claim(queue.UNLEARNING, "gpu") is None
    disposal = jobs.claim(queue.HOUSEKEEPING, "housekeeping")
    assert disposal is not None
    with database.transaction() as session:
        jobs.finish(session, jobs.hold(session, disposal), "succeeded", None)
    assert claim().kind == jobs.UNLEARNING


def test_a_silent_owners_job_is_taken_over_whatever_waits_behind_it() -> None:
    """It still has the line, so that a more urgent job of another queue cannot run before it."""
    job_id = enqueue("model:a")
    claim()
    with database.transaction() as session:
        session.execute(sa.update(tables.Job).values(due_at=sa.text("now() + interval '30 days'")))
        jobs.enqueue(session, jobs.DISPOSAL, line="model:a", subject_id=uuid.uuid4())
        session.execute(
            sa.update(tables.Job)
            .where(tables.Job.id == job_id)
            .values(lease_expires_at=sa.text("now() - interval '1 second'"))
        )
    assert jobs.claim(queue.HOUSEKEEPING, "housekeeping") is None
    again = claim("another")
    assert (again.job_id, again.attempt) == (job_id, 2)


def test_what_another_job_or_a_version_holds_is_needed() -> None:
    """Two models over the same data come to the same weights: one file, of which one lets go."""
    enqueue("model:a")
    enqueue("model:b")
    mine, other = claim(), claim()
    jobs.commit_step(mine, "unlearning", "a" * 64, 1.0)
    assert not destruction.is_needed("a" * 64, besides=mine.job_id)
    jobs.commit_step(other, "unlearning", "a" * 64, 1.0)
    assert destruction.is_needed("a" * 64, besides=mine.job_id)
    with database.transaction() as session:
        jobs.finish(session, jobs.hold(session, other), "failed", None)
    assert not destruction.is_needed("a" * 64, besides=mine.job_id)
    bare_models.dataset("rows", 2)
    bare_models.model("net", "rows", bare_models.generous(0.0))
    with database.transaction() as session:
        digest = session.scalars(sa.select(tables.VersionFile.digest)).one()
    assert destruction.is_needed(digest, besides=mine.job_id)


def test_hints_leave_through_the_outbox_once_and_jobs_that_wait_are_hinted_again() -> None:
    job_id = enqueue()
    assert queue.relay() == 1
    assert queue.relay() == 0
    with database.transaction() as session:
        room = {queue.UNLEARNING: 20}
        assert [job.id for job in jobs.unclaimed(session, 0.0, room)] == [job_id]
        assert jobs.unclaimed(session, 60.0, room) == []


def test_the_most_urgent_of_each_queue_are_hinted_while_there_is_room() -> None:
    first = enqueue()
    for _ in range(5):
        enqueue()
    with database.transaction() as session:
        ingestion = jobs.enqueue(session, jobs.INGESTION, line="set", subject_id=uuid.uuid4()).id
    with database.transaction() as session:
        room = {queue.UNLEARNING: 3, queue.HOUSEKEEPING: 3}
        found = [job.id for job in jobs.unclaimed(session, 0.0, room)]
        assert not jobs.unclaimed(session, 0.0, dict.fromkeys(room, 0))
    assert len(found) == 4
    assert {first, ingestion} <= set(found)


@pytest.fixture
def nobody_listens(running: stack.Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A broker whose messages no worker takes."""
    url = running.broker_url.replace("virtual_host=0", "virtual_host=7")
    assert url != running.broker_url
    monkeypatch.setenv("BROKER_URL", url)
    caches = (settings.load, queue.app)
    for cached in caches:
        cached.cache_clear()
    yield
    monkeypatch.undo()
    for cached in caches:
        cached.cache_clear()


@pytest.mark.usefixtures("nobody_listens")
def test_hints_do_not_pile_up_in_the_broker_while_nobody_takes_them() -> None:
    assert queue.backlog(queue.UNLEARNING) == 0
    for _ in range(2 * sweeping.MOST_HINTS):
        enqueue()
    assert queue.relay() == 2 * sweeping.MOST_HINTS  # each job's own first hint
    with database.transaction() as session:
        long_ago = sa.func.clock_timestamp() - datetime.timedelta(hours=1)
        session.execute(sa.update(tables.Job).values(not_before=long_ago))
    assert [sweeping.sweep().hinted for _ in range(3)] == [0, 0, 0]
    with queue.app().connection_for_write() as connection:
        connection.default_channel.queue_purge(queue.UNLEARNING)  # as if the broker lost them
    assert [sweeping.sweep().hinted for _ in range(3)] == [sweeping.MOST_HINTS, 0, 0]
    assert queue.backlog(queue.UNLEARNING) == sweeping.MOST_HINTS
