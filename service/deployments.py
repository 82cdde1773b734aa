"""Serving systems, by what they say that they run; a request is complete when none lags behind.

A deployment is known from its first report on until it is removed: one that falls silent may go on
serving what it had, and nobody can tell.
"""

import datetime
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from service import aliases, erasures, errors, tables, telling, versions

PROPAGATING = "propagating"  # stage of a request that waits for deployments alone


@dataclass(frozen=True)
class Deployment:
    """What one said last; ``up_to_date`` is whether that version may still be served."""

    deployment: str
    version: int
    manifest_digest: str
    loaded_at: datetime.datetime
    reported_at: datetime.datetime
    up_to_date: bool


def record(
    session: orm.Session,
    deployment: str,
    model: tables.Model,
    version: tables.Version,
    manifest_digest: str,
    loaded_at: datetime.datetime,
) -> bool:
    """Keep the newest report of a deployment; returns whether that version may still be served.

    Raises :class:`errors.Invalid` (``digest-mismatch``) when the manifest is not that version's.
    """
    if manifest_digest != version.manifest_digest:
        detail = (
            f"got manifest_digest {manifest_digest}; "
            f"version {version.number} has {version.manifest_digest}"
        )
        problem = errors.Problem("/manifest_digest", "digest-mismatch", detail)
        raise errors.Invalid("digest-mismatch", detail, [problem])
    values = {
        "version": version.number,
        "manifest_digest": manifest_digest,
        "loaded_at": loaded_at,
        "reported_at": sa.func.clock_timestamp(),
    }
    session.execute(
        postgresql.insert(tables.DeploymentReport)
        .values(deployment=deployment, model_id=model.id, **values)
        .on_conflict_do_update(index_elements=["deployment", "model_id"], set_=values)
    )
    return _is_up_to_date(session, model, version)


def listing(session: orm.Session, model: tables.Model) -> list[Deployment]:
    """The deployments of a model, by name."""
    return [
        Deployment(
            deployment=report.deployment,
            version=report.version,
            manifest_digest=report.manifest_digest,
            loaded_at=report.loaded_at,
            reported_at=report.reported_at,
            up_to_date=_is_up_to_date(session, model, version),
        )
        for report, version in _deployed(session, model.id)
    ]


def remove(session: orm.Session, actor: str, model: tables.Model, deployment: str) -> None:
    """A deployment serves the model no more; raises :class:`errors.NotFound`."""
    row = session.get(tables.DeploymentReport, (deployment, model.id))
    if row is None:
        detail = f"no deployment {deployment!r} has reported model {model.name!r}"
        raise errors.NotFound("deployment-not-found", detail)
    session.delete(row)
    session.flush()
    telling.audit(session, actor, "deployment.remove", model.id, deployment=deployment)


def lags(session: orm.Session, model_id: uuid.UUID) -> sa.ColumnElement[bool]:
    """Beside a request of the model: whether a deployment runs what remembers something of it."""
    deployed = [versions.forgets(version) for _, version in _deployed(session, model_id)]
    if not deployed:
        return sa.false()
    lacked_by_all = sorted(set(deployed[0]).intersection(*deployed[1:]))
    return sa.or_(
        *(
            one.where(column.not_in(lacked_by_all)).exists()
            for one in erasures.versions_named(tables.ForgetRequest)
            for column in one.selected_columns
        )
    )


def behind(session: orm.Session, request: tables.ForgetRequest) -> list[str]:
    """Names of the deployments that run what remembers something of a request."""
    erased_in = session.scalars(sa.union(*erasures.versions_named(request)))
    needed = {number for number in erased_in if number is not None}
    return [
        report.deployment
        for report, version in _deployed(session, request.model_id)
        if not needed.issubset(versions.forgets(version))
    ]


def _is_up_to_date(session: orm.Session, model: tables.Model, version: tables.Version) -> bool:
    return (
        version.state in versions.SERVABLE
        and aliases.missing_erasures(session, model, version) == 0
    )


def _deployed(
    session: orm.Session, model_id: uuid.UUID
) -> Sequence[sa.Row[tables.DeploymentReport, tables.Version]]:
    report, version = tables.DeploymentReport, tables.Version
    return session.execute(
        sa.select(report, version)
        .join(
            version,
            sa.and_(version.model_id == report.model_id, version.number == report.version),
        )
        .where(report.model_id == model_id)
        .order_by(report.deployment)
    ).all()
