"""The nets that say what a generator draws: one for a dataset and a kind, kept for later jobs.

A judge that is kept knows no sample that a published version of any model of its dataset lacks:
such samples are left out when it is trained, and what was kept before is dropped as they are
erased.
"""

import uuid
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from service import datasets, storage, tables


def erased(session: orm.Session, dataset: str) -> frozenset[str]:
    """Samples of a dataset that a published version of any model lacks."""
    return _erased(session, datasets.by_name(session, dataset).id)


def kept(session: orm.Session, dataset: str, name: str) -> str | None:
    """The digest of a judge that is in the store whole, or ``None``."""
    row = session.get(tables.Judge, (datasets.by_name(session, dataset).id, name))
    return row.digest if row is not None and storage.is_intact(row.digest) else None


def keep(
    session: orm.Session,
    dataset: str,
    name: str,
    stored: storage.Stored,
    detail: Mapping[str, Any],
    without: frozenset[str],
) -> bool:
    """Let later jobs find a judge; ``detail`` says how good it is, ``without`` what it never saw.

    Returns whether it is kept: not, and then nothing of it stays in the store, where more was
    erased while it was being trained.
    """
    dataset_id = datasets.by_name(session, dataset).id
    _hold(session, dataset_id)
    if _erased(session, dataset_id) != without:
        _remove(session, stored.digest)
        return False
    found = {"digest": stored.digest, "detail": dict(detail)}
    row = postgresql.insert(tables.Judge).values(dataset_id=dataset_id, name=name, **found)
    session.execute(row.on_conflict_do_update(index_elements=["dataset_id", "name"], set_=found))
    return True


def drop(session: orm.Session, dataset_id: uuid.UUID) -> None:
    """Samples are being erased: the judges that learnt them go, before this is committed.

    Where it is rolled back after all, :func:`kept` finds nothing whole and a judge is trained anew.
    """
    _hold(session, dataset_id)
    gone = sa.delete(tables.Judge).where(tables.Judge.dataset_id == dataset_id)
    for digest in session.scalars(gone.returning(tables.Judge.digest)).all():
        _remove(session, digest)


def _hold(session: orm.Session, dataset_id: uuid.UUID) -> None:
    """Nobody keeps a judge of the dataset while another erases samples of it."""
    session.get_one(
        tables.Dataset, dataset_id, with_for_update={"key_share": True}, populate_existing=True
    )


def _erased(session: orm.Session, dataset_id: uuid.UUID) -> frozenset[str]:
    found = (
        sa.select(tables.Erasure.sample_id)
        .join(tables.Model, tables.Model.id == tables.Erasure.model_id)
        .where(tables.Model.dataset_id == dataset_id, tables.Erasure.version.is_not(None))
    )
    return frozenset(session.scalars(found))


def _remove(session: orm.Session, digest: str) -> None:
    """Drop the file of a judge unless another dataset, of the same content, has the same one."""
    others = sa.select(sa.func.count()).select_from(tables.Judge)
    if not session.scalar(others.where(tables.Judge.digest == digest)):
        storage.remove(digest)
