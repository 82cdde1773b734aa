"""After the proof window: what is deleted, what remains, and what must not come back."""

import concurrent.futures
import datetime
import io
import json
import uuid

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from api import bodies, presenting
from api.schemas import forget_requests as schemas
from benchmarks import bare_models
from salun_core import specs
from service import (
    aliases,
    api_keys,
    artifacts,
    database,
    datasets,
    destruction,
    disposal,
    erasures,
    errors,
    forget_requests,
    ingestion,
    jobs,
    models,
    planning,
    plans,
    publication,
    queue,
    storage,
    tables,
    tombstones,
    versions,
)
from tests import material
from tests.service import duties

pytestmark = pytest.mark.usefixtures("empty")
NAME = "digits"
POLICY = {"grace_seconds": 0.0, "proof_window_seconds": 3600.0, "budget": {"daily_share": None}}


@pytest.fixture
def caller() -> api_keys.Caller:
    return bare_models.caller()


def stored(data: bytes) -> str:
    content = storage.put([data], destruction.arriving)
    with database.transaction() as session:
        session.merge(tables.Blob(digest=content.digest, size=content.size))
    return content.digest


def ingested(name: str, *data: bytes) -> uuid.UUID:
    digests = [stored(one) for one in data]
    with database.transaction() as session:
        dataset = tables.Dataset(name=name, files=digests)
        session.add(dataset)
        session.flush()
        ingestion.ingest(session, dataset, lambda *_: None)
        return dataset.id


@pytest.fixture
def model() -> str:
    """A model with one served version over the digits."""
    dataset_id = ingested(NAME, material.parquet().data)
    return over(dataset_id, NAME)


def over(dataset_id: uuid.UUID, name: str) -> str:
    with database.transaction() as session:
        size = session.get_one(tables.Dataset, dataset_id).splits[tables.TRAIN]
        row = tables.Model(
            name=name, family="classifier", dataset_id=dataset_id, policy=POLICY, head=1,
            training_size=size,
        )  # fmt: skip
        session.add(row)
        session.flush()
        add_version(session, row)
    return name


def add_version(session: sa.orm.Session, model: tables.Model) -> tables.Version:
    """The next version, served, with weights of its own."""
    number = versions.next_number(session, model)
    content = storage.put([f"weights of {model.name} {number}".encode()], destruction.arriving)
    session.merge(tables.Blob(digest=content.digest, size=content.size))
    session.flush()
    file = artifacts.FileRef("model.safetensors", content.digest, content.size)
    lineage = {"anchor": 1, "chain": [], "chain_length": 0, "forgets": list(range(1, number))}
    version = versions.add(session, model, [file], lineage=lineage)
    aliases.move(session, "test", model, "production", version)
    model.head = number
    return version


def erase(caller: api_keys.Caller, model: str, *targets: specs.Target) -> uuid.UUID:
    """A request, served by a version whose job is made up."""
    request_id = bare_models.submit(caller, model, *targets)
    with database.transaction() as session:
        row = models.by_name(session, model)
        version = add_version(session, row)
        session.execute(
            sa.update(tables.Erasure)
            .where(tables.Erasure.model_id == row.id, tables.Erasure.version.is_(None))
            .values(version=version.number, erased_at=sa.func.clock_timestamp())
        )
        session.execute(sa.update(tables.Job).values(status="succeeded"))
        request = forget_requests.by_id(session, request_id)
        request.status, request.result_version = "completed", version.number
    return request_id


def let_pass(**delta: float) -> None:
    """Move everything that windows are counted from into the past."""
    back = datetime.timedelta(**delta)
    with database.transaction() as session:
        for column in (
            tables.Erasure.erased_at,
            tables.Version.revoked_at,
            tables.Version.superseded_at,
        ):
            session.execute(
                sa.update(column.class_).where(column.is_not(None)).values({column: column - back})
            )


def dispose(model: str) -> tuple[list[int], list[int], int]:
    with database.transaction() as session:
        row = models.by_name(session, model)
        return (
            disposal.revoke_superseded(session, row),
            disposal.purge_versions(session, row),
            disposal.erase_samples(session, row),
        )


def destroy() -> int:
    with database.transaction() as session:
        return destruction.destroy(session)


def rows_in_store(name: str) -> dict[str, bytes]:
    """Sample id → encoded picture, read through the ledger's places."""
    with database.transaction() as session:
        dataset = datasets.by_name(session, name)
        found = {}
        for sample in session.scalars(
            sa.select(tables.Sample).where(tables.Sample.dataset_id == dataset.id)
        ):
            file = pq.ParquetFile(storage.path_of(dataset.files[sample.file_index]))
            table = file.read_row_group(sample.row_group, columns=["sample_id", "image"])
            row = table.slice(sample.row_index, 1).to_pylist()[0]
            assert row["sample_id"] == sample.sample_id
            found[sample.sample_id] = row["image"]["bytes"]
        return found


def test_erased_rows_leave_the_files_and_the_others_keep_their_place(
    caller: api_keys.Caller, model: str
) -> None:
    before = rows_in_store(NAME)
    gone = [*material.train_ids()[:40], *material.train_ids()[600:620]]
    erase(caller, model, bare_models.samples(*gone))
    assert dispose(model)[2] == 0  # the proof window is not over
    let_pass(hours=2)
    with database.transaction() as session:
        old = datasets.by_name(session, NAME).files[0]
    assert dispose(model)[2] == 60
    with database.transaction() as session:
        sizes = datasets.by_name(session, NAME).class_sizes
        trained = sa.select(sa.cast(tables.Sample.label, sa.Text), sa.func.count()).where(
            tables.Sample.split == tables.TRAIN
        )
        assert sizes == dict(session.execute(trained.group_by(tables.Sample.label)).all())
        dataset = datasets.by_name(session, NAME)
        split = tables.Sample.split
        counted = sa.select(split, sa.func.count()).group_by(split)
        assert dataset.splits == dict(session.execute(counted).all())
        assert sum(dataset.splits.values()) == dataset.rows
        # A share is of what the net was trained on; a model that comes now never saw the rest.
        fresh = models.register(session, "test", "fresh", "classifier", NAME, models.ModelPolicy())
        before_size = models.by_name(session, model).training_size
        assert (before_size, fresh.training_size) == (
            len(material.train_ids()),
            len(material.train_ids()) - 60,
        )
        session.rollback()
    after = rows_in_store(NAME)
    assert after == {name: data for name, data in before.items() if name not in gone}
    # The old file, the name of its decoded pictures, the weights of the version that remembered.
    assert destroy() == 3
    assert not storage.exists(old)
    # Nothing of the pictures is in any file of the store.
    contents = b"".join(path.read_bytes() for path in (storage.root() / "blobs").glob("*/*"))
    tables_left = [
        pq.read_table(io.BytesIO(path.read_bytes())).column("sample_id").to_pylist()
        for path in (storage.root() / "blobs").glob("*/*")
        if path.read_bytes()[:4] == b"PAR1"
    ]
    assert not set(gone) & {name for names in tables_left for name in names}
    assert all(name.encode() not in contents for name in gone)


def test_files_that_lose_all_rows_are_one(caller: api_keys.Caller) -> None:
    rows = material.rows()
    train = [row for row in rows if row["split"] == tables.TRAIN]
    parts = [[row for row in rows if row not in train[:4]], train[:2], train[2:4]]
    model = over(ingested(NAME, *(material.parquet(part).data for part in parts)), NAME)
    erase(caller, model, bare_models.samples(*(row["sample_id"] for row in train[:4])))
    let_pass(hours=2)
    assert dispose(model)[2] == 4
    with database.transaction() as session:
        files = datasets.by_name(session, NAME).files
    assert files[1] == files[2] != files[0]
    assert len(rows_in_store(NAME)) == len(rows) - 4


def test_ids_become_marks_wherever_they_stood(caller: api_keys.Caller, model: str) -> None:
    gone = material.train_ids()[:3]
    erase(caller, model, bare_models.samples(*gone))
    person = next(row for row in material.rows()[10:] if row["subject_id"] is not None)
    subject = specs.SubjectTarget(kind="subject", subject_id=person["subject_id"])
    erase(caller, model, subject)
    let_pass(hours=2)
    dispose(model)
    names = [*gone, str(person["subject_id"])]
    with database.transaction() as session:
        for table in tables.Base.metadata.sorted_tables:
            if table.name in {"sample", "dataset"}:
                continue  # samples that nobody erased have names
            for row in session.execute(sa.select(table)).all():
                said = json.dumps([str(value) for value in row])
                assert not [name for name in names if f'"{name}"' in said or f"'{name}'" in said]


def test_what_stays_of_a_demand_says_nothing_without_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Digests in requests, reports and manifests: nobody finds by them who was named."""
    sent = {"model": NAME, "targets": [{"kind": "sample", "ids": ["img_1"]}]}
    body = schemas.ForgetRequestIn.model_validate_json(json.dumps(sent))

    def marks() -> tuple[str, str, bytes]:
        return (
            tombstones.of_targets(["img_1", "img_0"]),
            bodies.demand(body).digest,
            tombstones.of_concept("jane doe"),
        )

    ours = marks()
    assert ours == marks()
    assert ours[0] == tombstones.of_targets(["img_0", "img_1"]) != tombstones.of_targets(["img_0"])
    monkeypatch.setattr(tombstones, "_key", lambda: b"another installation's".ljust(32))
    assert not set(ours) & set(marks())


def test_a_repeat_is_answered_at_once_and_the_digest_stays(
    caller: api_keys.Caller, model: str
) -> None:
    gone = material.train_ids("seven")
    label = specs.ClassTarget(kind="class", label="seven")
    erase(caller, model, label)
    with database.transaction() as session:
        before = erasures.forgotten_digest(session, models.by_name(session, model))
        labels = erasures.forgotten_labels(session, models.by_name(session, model))
    let_pass(hours=2)
    assert dispose(model)[2] == len(gone)
    with database.transaction() as session:
        assert erasures.forgotten_digest(session, models.by_name(session, model)) == before
        assert erasures.forgotten_labels(session, models.by_name(session, model)) == labels != ()
    for target in (label, bare_models.samples(*gone[:5])):
        found = duties.request(bare_models.submit(caller, model, target))
        assert (found.status, found.result_version) == ("completed", 2)
        assert found.already_erased == (len(gone) if target is label else 5)
    with pytest.raises(errors.Invalid):
        bare_models.submit(caller, model, bare_models.samples("no-such-sample"))


def test_a_person_of_whom_samples_are_left_is_still_found(
    caller: api_keys.Caller, model: str
) -> None:
    """A demand that waits keeps the name until all that it names is gone."""
    of_person: dict[str, list[str]] = {}
    for row in material.rows():
        if row["split"] == "train" and row["subject_id"] is not None:
            of_person.setdefault(row["subject_id"], []).append(row["sample_id"])
    person, ids = next((name, ids) for name, ids in of_person.items() if len(ids) > 1)
    subject = specs.SubjectTarget(kind="subject", subject_id=person)
    with database.transaction() as session:
        models.by_name(session, model).policy = {**POLICY, "budget": {"daily_share": 1e-6}}
    waits = bare_models.submit(caller, model, subject)
    assert duties.request(waits).status == "action_required"
    with database.transaction() as session:
        models.by_name(session, model).policy = POLICY
    erase(caller, model, bare_models.samples(ids[0]))
    let_pass(hours=2)
    assert dispose(model)[2] == 1
    assert duties.request(waits).body["targets"][0]["subject_id"] == person
    second = bare_models.caller("a second person")
    with database.transaction() as session:
        forget_requests.approve(
            session, second, forget_requests.by_id(session, waits, lock=True), "known"
        )
    found = duties.request(waits)
    assert (found.status, found.already_erased, found.matched) == ("pending", 1, len(ids) - 1)
    erase(caller, model, bare_models.samples(*ids[1:]))
    let_pass(hours=2)
    assert dispose(model)[2] == len(ids) - 1
    assert person not in json.dumps(duties.request(waits).body)


def test_what_was_deleted_before_a_model_was_served_is_not_asked_of_it(
    caller: api_keys.Caller, model: str
) -> None:
    """It has nothing left to forget those samples with; of a class it forgets the rest."""
    gone = material.train_ids("seven")[:3]
    erase(caller, model, bare_models.samples(*gone))
    let_pass(hours=2)
    assert dispose(model)[2] == 3
    with database.transaction() as session:
        dataset_id = models.by_name(session, model).dataset_id
    late = over(dataset_id, "late")
    with pytest.raises(errors.Invalid):
        bare_models.submit(caller, late, bare_models.samples(*gone))
    label = specs.ClassTarget(kind="class", label="seven")
    request = duties.request(bare_models.submit(caller, late, label))
    left = len(material.train_ids("seven")) - 3
    assert (request.matched, request.already_erased) == (left, 0)
    (batch,) = duties.batches_of(request.id)
    assert not [one for one in duties.erased_by(batch.id) if one.startswith("erased:")]


def test_what_passed_and_was_never_served_is_revoked_too(
    caller: api_keys.Caller, model: str
) -> None:
    """Version 2 passed and waited; 3 was served instead and forgot more."""
    with database.transaction() as session:
        row = models.by_name(session, model)
        add_version(session, row).state = "verified"
        alias = session.get_one(tables.Alias, (row.id, "production"))
        alias.version = 1
    erase(caller, model, bare_models.samples(*material.train_ids()[:3]))
    assert dispose(model)[0] == [1, 2]


def test_erased_content_does_not_come_back(caller: api_keys.Caller, model: str) -> None:
    gone = material.train_ids()[0]
    erase(caller, model, bare_models.samples(gone))
    let_pass(hours=2)
    dispose(model)
    renamed = [
        {**row, "sample_id": f"new-{index}"} for index, row in enumerate(material.rows()[:30])
    ]
    in_groups = io.BytesIO()  # of seven rows each
    last = [*renamed[1:20], renamed[0]]
    pq.write_table(
        pq.read_table(io.BytesIO(material.parquet(last).data)), in_groups, row_group_size=7
    )
    with pytest.raises(errors.Invalid) as refused:
        ingested("again", material.parquet(renamed[20:]).data, in_groups.getvalue())
    (problem,) = refused.value.problems
    assert (problem.pointer, problem.code) == ("/files/1/rows/19", "erased-content")
    assert "new-0" not in problem.detail
    ingested("rest", material.parquet(renamed[1:]).data)


def test_the_audit_trail_says_what_other_datasets_still_hold(
    caller: api_keys.Caller, model: str
) -> None:
    first, second = material.train_ids()[:2]
    copied = [row for row in material.rows() if row["sample_id"] == first]
    ingested("copies", material.parquet(copied).data)
    erase(caller, model, bare_models.samples(first, second))
    let_pass(hours=2)
    assert dispose(model)[2] == 2
    with database.transaction() as session:
        entries = sa.select(tables.AuditEntry.detail).where(
            tables.AuditEntry.action == "samples.erase"
        )
        assert session.scalars(entries).one() == {"samples": 2, "in_other_datasets": 1}


def test_what_another_model_remembers_stays(caller: api_keys.Caller, model: str) -> None:
    with database.transaction() as session:
        dataset_id = models.by_name(session, model).dataset_id
    other = over(dataset_id, "other")
    gone = material.train_ids()[:5]
    erase(caller, model, bare_models.samples(*gone))
    let_pass(hours=2)
    assert dispose(model)[2] == 0
    erase(caller, other, bare_models.samples(*gone))
    let_pass(hours=2)
    assert dispose(model)[2] == 5


def test_every_model_has_its_own_proof_window(caller: api_keys.Caller, model: str) -> None:
    """The other's is over at once, this one's after an hour: until then its proof stays."""
    with database.transaction() as session:
        dataset_id = models.by_name(session, model).dataset_id
    other = over(dataset_id, "other")
    with database.transaction() as session:
        models.by_name(session, other).policy = {**POLICY, "proof_window_seconds": 0.0}
    gone = material.train_ids()[:5]
    for name in (model, other):
        erase(caller, name, bare_models.samples(*gone))
    assert dispose(other)[2] == 0
    let_pass(hours=2)
    assert dispose(other)[2] == 5


def test_a_first_upload_that_waits_for_its_validation_remembers(
    caller: api_keys.Caller, model: str
) -> None:
    with database.transaction() as session:
        dataset_id = models.by_name(session, model).dataset_id
    other = over(dataset_id, "other")
    with database.transaction() as session:
        row = models.by_name(session, other)
        row.head = None
        first = versions.by_number(session, row, 1)
        first.state = "staged"
    erase(caller, model, bare_models.samples(*material.train_ids()[:5]))
    let_pass(hours=2)
    assert dispose(model)[2] == 0
    with database.transaction() as session:  # it is refused
        first = versions.by_number(session, models.by_name(session, other), 1)
        first.errors = [{"pointer": "", "code": "x", "detail": "x"}]
    assert dispose(model)[2] == 5


def job_of(claimed: jobs.Claim) -> tables.Job:
    with database.transaction() as session:
        return session.get_one(tables.Job, claimed.job_id)


def test_plans_that_are_kept_name_nobody_who_is_gone(caller: api_keys.Caller, model: str) -> None:
    gone = material.train_ids()[:5]
    bare_models.submit(caller, model, bare_models.samples(*gone))
    claimed = jobs.claim(queue.UNLEARNING, "test")
    assert claimed is not None
    plan = planning.pinned(claimed)
    old = job_of(claimed).inputs or {}
    bare_models.publish(claimed)
    let_pass(hours=2)
    assert dispose(model)[2] == 5
    destroy()
    with database.transaction() as session:
        kept = plans.of_version(
            session, versions.by_number(session, models.by_name(session, model), 2)
        )
    assert not storage.exists(old["plan"])
    assert len(kept.forget_ids) == 5
    assert not set(kept.forget_ids) & set(gone)
    assert kept.target_digest == plan.target_digest
    content = storage.read((job_of(claimed).inputs or {})["plan"])
    assert not [name for name in gone if name.encode() in content]


def test_an_upload_is_asked_about_what_is_not_deleted_yet(
    caller: api_keys.Caller, model: str
) -> None:
    def asked() -> tuple[list[str], list[int], list[int]] | None:
        with database.transaction() as session:
            row = models.by_name(session, model)
            plan = planning.of_upload(session, versions.by_number(session, row, 1))
        if plan is None:
            return None
        return list(plan.previous_ids), list(plan.previous_by), list(plan.excluded_labels)

    assert asked() is None  # nothing was erased
    first, second = sorted(material.train_ids()[:3]), sorted(material.train_ids()[10:12])
    erase(caller, model, bare_models.samples(*first))
    erase(caller, model, bare_models.samples(*second))
    by_id = dict.fromkeys(first, 2) | dict.fromkeys(second, 3)
    assert asked() == (sorted(by_id), [by_id[one] for one in sorted(by_id)], [])
    bare_models.submit(caller, model, bare_models.samples(material.train_ids()[20]))
    assert asked() == (sorted(by_id), [by_id[one] for one in sorted(by_id)], [])  # not erased yet
    with database.transaction() as session:
        session.execute(sa.update(tables.Job).values(status="succeeded"))
    let_pass(hours=2)
    assert dispose(model)[2] == 5
    assert asked() is None
    sevens = sorted(set(material.train_ids("seven")) - by_id.keys())
    erase(caller, model, specs.ClassTarget(kind="class", label="seven"))
    found = asked()
    assert found is not None
    assert set(sevens) <= set(found[0])
    assert found[2] == [material.LABELS.index("seven")]
    let_pass(hours=2)
    assert dispose(model)[2] > 0
    assert asked() is None  # what is gone cannot be asked about


@pytest.mark.parametrize("more", [[], [material.train_ids()[7]]])
def test_what_was_deleted_while_it_was_demanded_again_is_erased_already(
    caller: api_keys.Caller, model: str, more: list[str]
) -> None:
    """The demand found it in the ledger, and wrote its id after ids had become marks."""
    gone = material.train_ids()[0]
    erase(caller, model, bare_models.samples(gone))
    let_pass(hours=2)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        with database.transaction() as session:
            assert disposal.erase_samples(session, models.by_name(session, model)) == 1
            demand = bare_models.samples(gone, *more)
            again = pool.submit(bare_models.submit, caller, model, demand)
            with pytest.raises(TimeoutError):
                again.result(1.0)  # it waits for the deletion
        request_id = again.result(20)
    assert duties.request(request_id).matched == 1 + len(more)  # it saw what was there before
    claimed = jobs.claim(queue.UNLEARNING, "test")
    assert claimed is not None
    plan = planning.pinned(claimed)
    assert list(plan.forget_ids) == more
    if more:
        bare_models.publish(claimed)
    else:
        publication.nothing_left(claimed)
    request = duties.request(request_id)
    assert request.status == "completed"
    assert gone not in json.dumps(request.body)
    with database.transaction() as session:
        row = models.by_name(session, model)
        names = erasures.samples(session, row, sa.true())
        assert len(names) == erasures.count(session, row) == 1 + len(more)
        assert gone not in names


def test_an_alias_that_was_left_behind_follows_after_the_grace(
    caller: api_keys.Caller, model: str
) -> None:
    """The grace counts from the erasure that it lacks, however often others are served since."""
    with database.transaction() as session:
        row = models.by_name(session, model)
        row.policy = {**POLICY, "grace_seconds": 3600.0}
        aliases.move_by_hand(session, "test", row, "canary", 1, None)
    erase(caller, model, bare_models.samples(*material.train_ids()[:5]))
    with database.transaction() as session:
        assert disposal.move_left_aliases(session, models.by_name(session, model)) == []
    let_pass(hours=2)
    erase(caller, model, bare_models.samples(*material.train_ids()[5:9]))
    with database.transaction() as session:
        row = models.by_name(session, model)
        assert disposal.move_left_aliases(session, row) == ["canary"]
        assert aliases.point(session, row, "canary").version == 3
        assert disposal.move_left_aliases(session, row) == []


def test_a_job_in_the_midst_of_its_work_is_not_robbed(caller: api_keys.Caller, model: str) -> None:
    erase(caller, model, bare_models.samples(*material.train_ids()[:5]))
    let_pass(hours=2)
    bare_models.submit(caller, model, bare_models.samples(*material.train_ids()[5:9]))
    claimed = jobs.claim(queue.UNLEARNING, "test")
    assert claimed is not None
    assert dispose(model)[2] == 0
    with database.transaction() as session:
        jobs.finish(session, jobs.hold(session, claimed), "succeeded", None)
    assert dispose(model)[2] == 5


def test_a_plan_waits_for_a_disposal_over_the_same_data(
    caller: api_keys.Caller, model: str
) -> None:
    gone = material.train_ids()[:5]
    erase(caller, model, bare_models.samples(*gone))
    with database.transaction() as session:
        dataset_id = models.by_name(session, model).dataset_id
    other = over(dataset_id, "other")
    erase(caller, other, bare_models.samples(*gone))
    let_pass(hours=2)
    bare_models.submit(caller, other, bare_models.samples(*material.train_ids()[5:9]))
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        with database.transaction() as session:
            assert disposal.erase_samples(session, models.by_name(session, model)) == 5
            claimed = jobs.claim(queue.UNLEARNING, "test")
            assert claimed is not None
            planned = beside.submit(planning.pinned, claimed)
            concurrent.futures.wait([planned], timeout=0.5)
            assert not planned.done()
        plan = planned.result(timeout=20)
    assert len(plan.previous_ids) == 5
    assert not set(plan.previous_ids) & set(gone)


def test_superseded_versions_are_revoked_then_purged(caller: api_keys.Caller, model: str) -> None:
    erase(caller, model, bare_models.samples(*material.train_ids()[:5]))
    with database.transaction() as session:
        first = versions.by_number(session, models.by_name(session, model), 1)
        weights = versions.files_of(session, first)[0].digest
    assert dispose(model)[:2] == ([1], [])
    assert storage.exists(weights)  # proof, for an hour
    assert destroy() == 0
    let_pass(hours=2)
    assert dispose(model)[:2] == ([], [1])
    assert destroy() >= 1
    assert not storage.exists(weights)
    with database.transaction() as session:
        row = models.by_name(session, model)
        states = {version.number: version.state for version in versions.listing(session, row)}
        entry = session.scalars(
            sa.select(tables.AuditEntry).where(tables.AuditEntry.action == "content.destroy")
        ).one()
        first = versions.by_number(session, row, 1)
        with pytest.raises(errors.Gone):
            versions.refuse_revoked(row, first)
        shown = presenting.version(session, row, first)
    assert states == {1: "purged", 2: "published"}
    assert (shown.purged_at is not None, shown.files) == (True, [])
    assert entry.detail["left"] == []
    assert entry.detail["files_in_store"] == len(storage.listing())


def test_content_that_somebody_needs_is_not_destroyed(model: str) -> None:
    with database.transaction() as session:
        first = versions.by_number(session, models.by_name(session, model), 1)
        digest = versions.files_of(session, first)[0].digest
        needless = storage.put([b"nobody's"], destruction.arriving).digest
        destruction.condemn(session, [digest, needless])
    assert destroy() == 1
    assert storage.exists(digest)
    assert not storage.exists(needless)


def test_sweeps_queue_one_disposal_for_a_model(caller: api_keys.Caller, model: str) -> None:
    def queued() -> int:
        with database.transaction() as session:
            return disposal.enqueue_due(session)

    assert queued() == 0
    erase(caller, model, bare_models.samples(*material.train_ids()[:5]))
    assert [queued(), queued()] == [1, 0]
    claimed = jobs.claim(queue.HOUSEKEEPING, "test")
    assert claimed is not None
    assert claimed.kind == jobs.DISPOSAL


def test_no_disposal_is_queued_that_would_have_to_wait(caller: api_keys.Caller, model: str) -> None:
    """Being due at once it would keep a job that is half done from the line, sweep after sweep."""
    erase(caller, model, bare_models.samples(*material.train_ids()[:5]))
    dispose(model)  # revokes what is superseded, so that only samples are due later
    bare_models.submit(caller, model, bare_models.samples(*material.train_ids()[5:9]))
    claimed = jobs.claim(queue.UNLEARNING, "test")
    assert claimed is not None
    with database.transaction() as session:
        session.execute(
            sa.update(tables.Erasure)
            .where(tables.Erasure.erased_at.is_not(None))
            .values(erased_at=tables.Erasure.erased_at - datetime.timedelta(hours=2))
        )
        jobs.hold(session, claimed).inputs = {"plan": "0" * 64, "base_version": 2}
        jobs.requeue(session, jobs.hold(session, claimed))
    with database.transaction() as session:
        assert disposal.enqueue_due(session) == 0
    claimed = jobs.claim(queue.UNLEARNING, "another")
    assert claimed is not None
    with database.transaction() as session:
        assert disposal.enqueue_due(session) == 1  # it runs when the line is free
        jobs.finish(session, jobs.hold(session, claimed), "succeeded", None)
    assert dispose(model)[2] == 5


def test_a_version_that_a_half_done_job_starts_from_is_not_purged(
    caller: api_keys.Caller, model: str
) -> None:
    erase(caller, model, bare_models.samples(*material.train_ids()[:5]))
    assert dispose(model)[0] == [1]
    let_pass(hours=2)
    bare_models.submit(caller, model, bare_models.samples(*material.train_ids()[5:9]))
    claimed = jobs.claim(queue.UNLEARNING, "test")
    assert claimed is not None
    jobs.pin_inputs(claimed, {"plan": "0" * 64, "base_version": 1})
    assert dispose(model)[1] == []
    with database.transaction() as session:
        jobs.finish(session, jobs.hold(session, claimed), "succeeded", None)
    assert dispose(model)[1] == [1]
