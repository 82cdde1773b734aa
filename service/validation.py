"""How the validation of an uploaded version ends."""

import sqlalchemy as sa
from sqlalchemy import orm

from service import aliases, errors, models, tables, telling


def accept(session: orm.Session, version: tables.Version) -> None:
    """A worker found that the files fit: publish, and serve unless that would undo an erasure."""
    model = session.get_one(tables.Model, version.model_id, with_for_update=True)
    version.state = "published"
    version.published_at = sa.func.clock_timestamp()
    if not aliases.has_forgotten(session, model):
        model.head = version.number
        aliases.move(session, "worker", model, models.PRODUCTION, version)


def refuse(session: orm.Session, version: tables.Version, problem: errors.Problem) -> None:
    """A worker found that the files do not fit; the version stays staged and says why."""
    version.errors = [{"pointer": problem.pointer, "code": problem.code, "detail": problem.detail}]
    telling.audit(session, "worker", "version.refuse", version.id, code=problem.code)


def discard(session: orm.Session, version: tables.Version) -> None:
    """Take back a version that was refused while its uploader still waited for the answer."""
    session.execute(
        sa.delete(tables.VersionFile).where(tables.VersionFile.version_id == version.id)
    )
    session.execute(sa.delete(tables.Version).where(tables.Version.id == version.id))
