"""Migrations lead to the tables of the code, and keep what rows tell on the way."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from alembic import autogenerate, command
from alembic.runtime import migration

from benchmarks import bare_models
from client.local import stack
from migrations import __main__ as migrations
from service import database, models, tables
from tests.service import conftest


@pytest.fixture(scope="module")
def engine(running: stack.Running) -> Iterator[sa.Engine]:
    """A database of its own: others must not meet an older schema."""
    with conftest.on_database(running, "migrated") as engine:
        yield engine


def counts() -> tuple[object, dict[int, int]]:
    """Of the only dataset and model: training samples by class, erasures by label."""
    count = tables.ErasureCount
    with database.transaction() as session:
        sizes = session.scalars(sa.select(tables.Dataset.class_sizes)).one()
        rows = session.execute(
            sa.select(count.label, sa.func.sum(count.erasures)).group_by(count.label)
        )
        return sizes, {label: int(erasures) for label, erasures in rows}


def test_they_lead_to_the_tables_of_the_code(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        context = migration.MigrationContext.configure(connection)
        assert autogenerate.compare_metadata(context, tables.Base.metadata) == []


def test_counts_are_made_of_what_an_older_schema_holds(engine: sa.Engine) -> None:
    caller = bare_models.caller()
    bare_models.dataset("pictures", 101)
    bare_models.model("net", "pictures", bare_models.generous(3600.0))
    for index in range(7):
        bare_models.submit(caller, "net", bare_models.samples(f"s{3 * index}"))
    before = counts()
    assert before == ({"0": 51, "1": 50}, {-1: 7, 0: 4, 1: 3})
    engine.dispose()
    command.downgrade(migrations.configuration(), "0007")
    migrations.upgrade("head")
    assert counts() == before


def test_a_dataset_counts_what_a_disposal_left(engine: sa.Engine) -> None:
    bare_models.dataset("disposed", 100)
    bare_models.model("older", "disposed", bare_models.generous(3600.0))
    with database.transaction() as session:  # until then splits stayed as they were
        session.execute(sa.text("DELETE FROM sample WHERE sample_id ~ '^s9[0-9]$'"))
        dataset = session.scalars(
            sa.select(tables.Dataset).where(tables.Dataset.name == "disposed")
        ).one()
        session.add_all(
            tables.Tombstone(
                dataset_id=dataset.id, sample_mark=f"mark-{n}", content_mark=bytes([n])
            )
            for n in range(10)
        )
    bare_models.model("younger", "disposed", bare_models.generous(3600.0))
    with database.transaction() as session:  # as if it was for ever
        session.execute(sa.text("UPDATE model SET policy = policy || '{\"grace_seconds\": 4e9}'"))
    engine.dispose()
    for _ in range(2):
        command.downgrade(migrations.configuration(), "0012")
        migrations.upgrade("head")
        with database.transaction() as session:
            for name, size in (("older", 100), ("younger", 90)):
                model = models.by_name(session, name)
                assert (model.training_size, model.dataset.splits) == (size, {"train": 90})
                assert models.policy_of(model).grace_seconds == 36_525 * 86_400
                assert models.policy_of(model).batch_window_seconds == 3600
