"""Content that nothing refers to goes after a day; what anything refers to stays."""

import concurrent.futures
import contextlib
import datetime
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from api.routes import blobs
from service import (
    artifacts,
    database,
    datasets,
    destruction,
    errors,
    jobs,
    leftovers,
    models,
    queue,
    settings,
    storage,
    tables,
    versions,
)
from tests import material
from tests.service import duties

pytestmark = pytest.mark.usefixtures("empty", "nothing_else")
TWO_DAYS = 2 * 86_400.0
LINEAGE = {"anchor": 1, "chain": [], "chain_length": 0, "forgets": []}


@pytest.fixture
def nothing_else(empty: sa.Engine) -> None:
    """An empty store."""
    del empty
    for name in storage.listing():
        storage.remove(name)
    storage.clear_scratch(float("inf"))


def written(data: bytes, arriving: storage.Arriving = destruction.arriving) -> str:
    """The digest of content that was made."""
    return storage.put([data], arriving).digest


def sent(data: bytes) -> str:
    """The digest of content that was sent."""
    with storage.incoming() as writer:
        writer.write(data)
        return blobs._keep(writer, writer.digest).digest


def grow_old() -> None:
    """Nothing was written in the last two days."""
    then = time.time() - TWO_DAYS
    for path in [*storage.root().rglob("*")]:
        os.utime(path, (then, then), follow_symlinks=False)
    back = datetime.timedelta(seconds=TWO_DAYS)
    with database.transaction() as session:
        content = tables.Content
        session.execute(sa.update(content).values(created_at=content.created_at - back))


def swept() -> int:
    """Contents that were found and are gone after a sweep."""
    found = leftovers.clear()
    with database.transaction() as session:
        assert destruction.destroy(session) == found.contents
    return found.contents


def audited(action: str) -> list[dict[str, object]]:
    with database.transaction() as session:
        entries = sa.select(tables.AuditEntry).where(tables.AuditEntry.action == action)
        return [entry.detail for entry in session.scalars(entries)]


def test_what_was_sent_and_never_used_goes_after_a_day() -> None:
    unused = sent(b"never used")
    assert swept() == 0  # who sent it names it afterwards
    grow_old()
    fresh = sent(b"sent just now")
    assert swept() == 1
    assert storage.listing() == {fresh}
    with database.transaction() as session:
        assert session.get(tables.Blob, unused) is None
        assert session.get(tables.Blob, fresh) is not None
        assert session.get(tables.Condemned, unused) is None
    assert audited("content.unused") == [{"contents": 1}]
    assert len(audited("content.destroy")) == 1
    assert swept() == 0
    assert len(audited("content.unused")) == 1
    grow_old()
    sent(b"sent just now")  # again: it is as good as new
    assert swept() == 0


def test_a_wrong_database_costs_nothing() -> None:
    """Whoever starts the service with an empty one on a store full of data deletes none of it."""
    full = {written(f"of another database {n}".encode(), contextlib.nullcontext) for n in range(3)}
    grow_old()
    assert swept() == 0
    assert storage.listing() == full


def test_what_was_made_by_who_died_then_goes_after_a_day() -> None:
    """The worker was killed between the file and the row that would have referred to it."""
    written(b"a mask")
    assert swept() == 0
    grow_old()
    assert swept() == 1
    assert storage.listing() == set()
    with database.transaction() as session:
        assert not session.scalars(sa.select(tables.Content)).all()


@pytest.mark.parametrize("put", [written, sent])
def test_who_dies_between_row_and_file_leaves_nothing(
    put: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: storage.Incoming, __: storage.Stored) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(storage.Incoming, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            put(b"a mask")
    assert storage.listing() == set()
    grow_old()
    assert swept() == 0  # there was nothing to destroy
    assert audited("content.unused") == []
    with database.transaction() as session:
        for table in (tables.Blob, tables.Content):
            assert not session.scalars(sa.select(table)).all()
    assert storage.read(put(b"a mask")) == b"a mask"


def test_everything_that_is_referred_to_stays() -> None:
    weights, data = sent(b"weights"), sent(b"data")
    judge, shadow, step, plan = (
        written(name.encode()) for name in ("judge", "shadow", "step", "plan")
    )
    net = duties.new_model({})
    with database.transaction() as session:
        model = models.by_name(session, net)
        dataset = session.get_one(tables.Dataset, model.dataset_id)
        dataset.files = [data]
        version = versions.add(
            session, model, [artifacts.FileRef("model.safetensors", weights, 7)], lineage=LINEAGE
        )
        version.state = "published"
        session.add(tables.Judge(dataset_id=dataset.id, name="j", digest=judge, detail={}))
        session.add(tables.ShadowPair(base_version_id=version.id, name="s", artifact_digest=shadow))
        job = jobs.enqueue(session, jobs.UNLEARNING, line="one", subject_id=uuid.uuid4())
        job.inputs = {"plan": plan}
        session.add(
            tables.JobStep(job_id=job.id, name="m", fence=1, artifact_digest=step, run_seconds=1)
        )
        job_id = job.id
    grow_old()
    assert swept() == 0
    kept = {weights, data, judge, shadow, step, plan}
    assert kept < storage.listing()  # and what the model was made with
    with database.transaction() as session:
        job = session.get_one(tables.Job, job_id)
        job.status = "failed"  # nobody goes on from what it made
    assert swept() == 2
    assert kept - storage.listing() == {step, plan}


def test_pictures_of_a_report_go_with_the_proof_window() -> None:
    """They show what was forgotten: after the window the report names them by digest alone."""
    before, after = sent(b"\x89PNG before"), written(b"\x89PNG after")
    net = duties.new_model({"proof_window_seconds": 3600.0})
    with database.transaction() as session:
        model = models.by_name(session, net)
        model.family = "text_to_image"
        version = versions.add(session, model, [], lineage=LINEAGE)
        listed = [{"name": "forgotten", "digest": digest} for digest in (before, after)]
        version.report = {"evidence": {"pictures": listed}}
        other = versions.add(session, model, [], lineage=LINEAGE)
        other.report = {"evidence": {}}
        number = version.id
    grow_old()
    assert swept() == 0
    with database.transaction() as session:
        session.get_one(tables.Version, number).created_at -= datetime.timedelta(hours=2)
    assert swept() == 2
    assert not storage.listing() & {before, after}


def test_what_a_version_that_did_not_pass_was_made_by_stays_until_it_is_purged() -> None:
    """It can be audited: by the plan and the mask of its job."""
    plan, mask = written(b"plan"), written(b"mask")
    net = duties.new_model({})
    with database.transaction() as session:
        job = jobs.enqueue(session, jobs.UNLEARNING, line="one", subject_id=uuid.uuid4())
        job.inputs, job.status = {"plan": plan}, "succeeded"
        session.add(
            tables.JobStep(job_id=job.id, name="m", fence=1, artifact_digest=mask, run_seconds=1)
        )
        model = models.by_name(session, net)
        version = versions.add(session, model, [], lineage=LINEAGE, job_id=job.id)
        version.report = {"verdict": {"passed": False}}
        number = version.id
    grow_old()
    assert swept() == 0
    with database.transaction() as session:
        session.get_one(tables.Version, number).state = "purged"
    assert swept() == 2
    assert not storage.listing() & {plan, mask}


def test_what_an_unfinished_job_made_stays() -> None:
    """Its report's pictures are referred to only once it has published."""
    with database.transaction() as session:
        jobs.enqueue(session, jobs.UNLEARNING, line="one", subject_id=uuid.uuid4())
    claimed = jobs.claim(queue.UNLEARNING, "worker")
    assert claimed is not None
    written(b"picture")
    grow_old()
    began = datetime.datetime.fromtimestamp(time.time() - TWO_DAYS - 60, datetime.UTC)
    with database.transaction() as session:
        job = session.get_one(tables.Job, claimed.job_id)
        job.started_at, job.status = began, "queued"  # it was given back
    assert swept() == 0
    with database.transaction() as session:
        session.get_one(tables.Job, claimed.job_id).kind = jobs.AUDIT  # it may wait for months
    assert swept() == 1


def test_scratch_of_an_unfinished_job_stays() -> None:
    with database.transaction() as session:
        jobs.enqueue(session, jobs.UNLEARNING, line="one", subject_id=uuid.uuid4())
    claimed = jobs.claim(queue.UNLEARNING, "worker")
    assert claimed is not None
    with storage.scratch(claimed.job_id, claimed.fence) as folder:
        (folder / "part").write_bytes(b"half")
        grow_old()
        began = datetime.datetime.fromtimestamp(time.time() - TWO_DAYS - 60, datetime.UTC)
        with database.transaction() as session:
            job = session.get_one(tables.Job, claimed.job_id)
            job.started_at, job.status = began, "queued"  # it was given back
        assert leftovers.clear() == leftovers.Cleared(0, 0)
        assert (folder / "part").exists()
        with database.transaction() as session:
            session.get_one(tables.Job, claimed.job_id).status = "failed"
        assert leftovers.clear() == leftovers.Cleared(0, 1)
        assert not folder.exists()


def test_scratch_of_the_dead_goes_and_what_is_being_written_stays() -> None:
    with storage.incoming() as writer, storage.linked({"config.json": "0" * 64}) as links:
        writer.write(b"half of a file")
        litter = storage.root() / "incoming" / "tmpkilled"
        litter.write_bytes(b"half")
        folder = storage.root() / "work" / "tmpkilled"
        folder.mkdir()
        (folder / "link").symlink_to(storage.path_of("0" * 64))  # goes nowhere
        assert leftovers.clear() == leftovers.Cleared(0, 0)
        grow_old()
        os.utime(writer.path)
        os.utime(links)
        assert leftovers.clear() == leftovers.Cleared(0, 2)
        assert not litter.exists()
        assert not folder.exists()
        assert writer.path.exists()
        assert links.exists()


def test_less_than_an_hour_is_no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALUN_UNUSED_SECONDS", "60")
    settings.load.cache_clear()
    with pytest.raises(ValueError, match="SALUN_UNUSED_SECONDS"):
        settings.load()
    settings.load.cache_clear()


# --- somebody names it, or sends it again, in the moment of its destruction ------------------


def condemned(data: bytes, put: Callable[[bytes], str] = sent) -> str:
    digest = put(data)
    with database.transaction() as session:
        destruction.condemn(session, [digest])
    return digest


def destroyed() -> int:
    with database.transaction() as session:
        return destruction.destroy(session)


@contextlib.contextmanager
def being_destroyed(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[
    tuple[concurrent.futures.Executor, threading.Event, "concurrent.futures.Future[int]"]
]:
    """A sweep that deletes nothing before it is told to go on, though it has begun."""
    begun, go_on = threading.Event(), threading.Event()
    remove = storage.remove

    def slowly(name: str) -> None:
        begun.set()
        assert go_on.wait(20)
        remove(name)

    monkeypatch.setattr(storage, "remove", slowly)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        destroying = pool.submit(destroyed)
        assert begun.wait(20)
        yield pool, go_on, destroying


def test_what_is_being_named_is_left_and_then_needed() -> None:
    data = material.parquet().data
    digest = condemned(data)
    with database.transaction() as session:
        datasets.register(session, "test", "again", [digest])
        assert destroyed() == 0
    assert destroyed() == 0
    assert storage.exists(digest)


def test_who_names_what_is_being_destroyed_is_told_that_it_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The registration waits for the deletion, which has begun."""
    digest = condemned(material.parquet().data)

    def register() -> None:
        with database.transaction() as session:
            datasets.register(session, "test", "late", [digest])

    with being_destroyed(monkeypatch) as (pool, go_on, destroying):
        registering = pool.submit(register)
        time.sleep(0.3)
        assert not registering.done()
        go_on.set()
        assert destroying.result(20) == 1
        with pytest.raises(errors.Invalid, match="no blob"):
            registering.result(20)


@pytest.mark.parametrize("before", [written, sent])
@pytest.mark.parametrize(("put", "table"), [(written, tables.Content), (sent, tables.Blob)])
def test_what_comes_again_while_it_is_destroyed_is_there_afterwards(
    before: Callable[[bytes], str],
    put: Callable[[bytes], str],
    table: type[tables.Content | tables.Blob],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digest = condemned(b"wanted again", before)
    with being_destroyed(monkeypatch) as (pool, go_on, destroying):
        putting = pool.submit(put, b"wanted again")
        time.sleep(0.3)
        assert not putting.done()
        go_on.set()
        assert destroying.result(20) == 1
        assert putting.result(20) == digest
    assert storage.read(digest) == b"wanted again"
    with database.transaction() as session:
        assert session.get(table, digest) is not None
        assert session.get(tables.Condemned, digest) is None


@pytest.mark.parametrize("put", [written, sent])
def test_what_is_coming_is_left(
    put: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it is condemned in that moment, and was old."""
    digest = condemned(b"wanted again")
    grow_old()
    commit = storage.Incoming.commit

    def beside_a_sweep(writer: storage.Incoming, stored: storage.Stored) -> None:
        with database.transaction() as session:
            destruction.condemn(session, ["ab" * 32])
        with concurrent.futures.ThreadPoolExecutor() as pool:
            assert pool.submit(leftovers.clear).result(20).contents == 0
            assert pool.submit(destroyed).result(20) == 1  # the other
        commit(writer, stored)

    monkeypatch.setattr(storage.Incoming, "commit", beside_a_sweep)
    assert put(b"wanted again") == digest
    assert destroyed() == 0
    assert storage.read(digest) == b"wanted again"


def test_what_is_destroyed_between_its_row_and_its_coming_is_noted_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transaction = database.transaction
    sweeps = iter(["the only one"])

    @contextlib.contextmanager
    def followed_by_a_sweep() -> Iterator[orm.Session]:
        with transaction() as session:
            yield session
        if next(sweeps, None):
            with transaction() as session:
                session.execute(sa.delete(tables.Content))

    monkeypatch.setattr(database, "transaction", followed_by_a_sweep)
    digest = written(b"made")
    with transaction() as session:
        assert session.get(tables.Content, digest) is not None
    assert storage.read(digest) == b"made"


def test_another_content_than_was_named_leaves_no_row() -> None:
    digest = "ab" * 32
    with storage.incoming() as writer:
        writer.write(b"something else")
        with pytest.raises(errors.Invalid, match="expected abab"):
            blobs._keep(writer, digest)
    with database.transaction() as session:
        assert session.get(tables.Blob, digest) is None


def test_what_is_named_is_pardoned_and_condemned_anew_later() -> None:
    """Who began to read it in between is waited for, as if it had never been condemned."""
    digest = condemned(b"named once more")
    with database.transaction() as session:
        assert destruction.keep_from(session, [digest]) == {digest: 15}
    with database.transaction() as session:
        assert session.get(tables.Condemned, digest) is None
        jobs.enqueue(session, jobs.UNLEARNING, line="one", subject_id=uuid.uuid4())
    claimed = jobs.claim(queue.UNLEARNING, "worker")
    assert claimed is not None
    for _ in range(2):  # the second finds it condemned already, before the run began or not
        with database.transaction() as session:
            destruction.condemn(session, [digest])
        assert destroyed() == 0
    with database.transaction() as session:
        jobs.finish(session, jobs.by_id(session, claimed.job_id), "succeeded", None)
    assert destroyed() == 1


def test_what_is_held_after_all_is_pardoned() -> None:
    digest = condemned(material.parquet().data)
    with database.transaction() as session:
        datasets.register(session, "test", "again", [digest])
        destruction.condemn(session, [digest])  # whoever condemns saw it before it was named
    assert swept() == 0
    back = datetime.timedelta(days=2)
    with database.transaction() as session:
        row = session.get_one(tables.Condemned, digest)
        row.created_at -= back
    assert swept() == 0
    with database.transaction() as session:
        assert session.get(tables.Condemned, digest) is None
    assert storage.exists(digest)


def test_what_is_gone_cannot_be_named() -> None:
    digest = sent(b"gone")
    storage.remove(digest)  # and its process died before the row went too
    with database.transaction() as session:
        assert destruction.keep_from(session, [digest]) == {}


def test_many_contents_are_looked_through_beside_many_jobs_and_versions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By joins: looked up one by one they would take longer than any sweep may."""
    monkeypatch.setattr(storage, "exists", lambda _: True)
    duties.new_model({})
    count = 3000
    with database.transaction() as session:
        session.execute(
            sa.text(
                "WITH known AS (INSERT INTO content (digest) SELECT 'b' || n"
                " FROM generate_series(1, :n) n RETURNING digest)"
                " INSERT INTO blob (digest, size) SELECT digest, 1 FROM known"
            ),
            {"n": 20 * count},
        )
        session.execute(
            sa.text(
                "INSERT INTO dataset (name, files) SELECT 'd' || n, (SELECT array_agg('b' || k) "
                "FROM generate_series(n, n + 20) k) FROM generate_series(1, 200) n"
            )
        )
        session.execute(
            sa.text(
                "INSERT INTO job (kind, queue, line, subject_id, due_at, max_attempts, status,"
                " inputs) SELECT 'unlearning', 'unlearning', 'l' || n, gen_random_uuid(), now(), 3,"
                " 'succeeded', jsonb_build_object('plan', 'p' || n) FROM generate_series(1, :n) n"
            ),
            {"n": count},
        )
    grow_old()
    with database.transaction() as session:
        session.execute(sa.text("SET LOCAL statement_timeout = '20s'"))
        assert destruction.condemn_unused(session, datetime.timedelta(days=1)) == 10_000
