"""The nets that say what a generator draws: one for a dataset and a kind, kept for later jobs."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from service import datasets, storage, tables


def kept(session: orm.Session, dataset: str, name: str) -> str | None:
    """The digest of a judge that is in the store whole, or ``None``."""
    row = session.get(tables.Judge, (datasets.by_name(session, dataset).id, name))
    return row.digest if row is not None and storage.is_intact(row.digest) else None


def keep(
    session: orm.Session, dataset: str, name: str, stored: storage.Stored, detail: Mapping[str, Any]
) -> None:
    """Let later jobs find a judge; ``detail`` says how good it is."""
    found = {"digest": stored.digest, "detail": dict(detail)}
    row = postgresql.insert(tables.Judge).values(
        dataset_id=datasets.by_name(session, dataset).id, name=name, **found
    )
    session.execute(row.on_conflict_do_update(index_elements=["dataset_id", "name"], set_=found))
