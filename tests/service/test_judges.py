"""Kept judges: found again whole, dropped as samples are erased, never kept with what is erased."""

import threading
import time

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from service import database, destruction, judges, storage, tables

NAME = "classes/1x8x8"
pytestmark = pytest.mark.usefixtures("empty")


def register(name: str) -> None:
    """A dataset of two training samples, and a model over it."""
    with database.transaction() as session:
        dataset = tables.Dataset(name=name, files=[], status="ready", rows=2, splits={"train": 2})
        session.add(dataset)
        session.flush()
        session.add_all(
            tables.Sample(
                dataset_id=dataset.id, sample_id=f"s{index}", split="train", label=index,
                content_hash=bytes([index]), file_index=0, row_group=0, row_index=index,
            )
            for index in range(2)
        )  # fmt: skip
        session.add(
            tables.Model(
                name=f"{name}-net", family="class_conditional_diffusion", dataset_id=dataset.id,
                policy={}, head=1, training_size=2,
            )
        )  # fmt: skip


def erase(session: orm.Session, name: str, sample_id: str, version: int | None) -> None:
    """A model's demand for a sample, published in a version or under way."""
    model = session.scalars(sa.select(tables.Model).where(tables.Model.name == f"{name}-net")).one()
    batch = tables.Batch(
        model_id=model.id, kind="samples", profile=sample_id, method={}, state="completed"
    )
    session.add(batch)
    session.flush()
    session.add(
        tables.Erasure(
            model_id=model.id, sample_id=sample_id, batch_id=batch.id, version=version
        )
    )  # fmt: skip


def keep(dataset: str, content: bytes, without: frozenset[str] = frozenset()) -> str:
    stored = storage.put([content], destruction.arriving)
    with database.transaction() as session:
        judges.keep(session, dataset, NAME, stored, {}, without)
    return stored.digest


def kept(dataset: str) -> str | None:
    with database.transaction() as session:
        return judges.kept(session, dataset, NAME)


def drop(dataset: str) -> None:
    with database.transaction() as session:
        found = session.scalars(sa.select(tables.Dataset).where(tables.Dataset.name == dataset))
        judges.drop(session, found.one().id)


def test_a_judge_is_found_again_until_its_file_is_torn() -> None:
    register("shapes")
    assert kept("shapes") is None
    digest = keep("shapes", b"first")
    assert kept("shapes") == digest
    storage.path_of(digest).write_bytes(b"torn")
    assert kept("shapes") is None


def test_a_judge_that_learnt_what_is_erased_goes_with_its_file() -> None:
    register("shapes")
    digest = keep("shapes", b"second")
    drop("shapes")
    assert kept("shapes") is None
    assert not storage.exists(digest)
    with database.transaction() as session:
        assert not session.scalars(sa.select(tables.Judge)).all()


def test_the_same_judge_of_another_dataset_stays() -> None:
    register("shapes")
    register("copies")
    digest = keep("shapes", b"third")
    assert keep("copies", b"third") == digest
    drop("shapes")
    assert kept("copies") == digest


def test_only_what_a_published_version_lacks_is_erased() -> None:
    register("shapes")
    with database.transaction() as session:
        erase(session, "shapes", "s0", 2)
        erase(session, "shapes", "s1", None)
        assert judges.erased(session, "shapes") == {"s0"}


def test_a_judge_that_was_trained_while_more_was_erased_is_not_kept() -> None:
    register("shapes")
    with database.transaction() as session:
        erase(session, "shapes", "s0", 2)
    digest = keep("shapes", b"late", without=frozenset())
    assert kept("shapes") is None
    assert not storage.exists(digest)
    assert keep("shapes", b"after", without=frozenset({"s0"})) == kept("shapes")


def test_who_keeps_a_judge_waits_for_who_erases() -> None:
    """Else the judge would be kept between the look at what is erased and its commit."""
    register("shapes")
    digests: list[str] = []
    keeping = threading.Thread(target=lambda: digests.append(keep("shapes", b"meanwhile")))
    with database.transaction() as session:
        found = session.scalars(sa.select(tables.Dataset).where(tables.Dataset.name == "shapes"))
        judges.drop(session, found.one().id)
        keeping.start()
        erase(session, "shapes", "s0", 2)
        session.flush()
        time.sleep(0.3)
        assert keeping.is_alive()
    keeping.join(10)
    assert kept("shapes") is None
    assert not storage.exists(digests[0])
