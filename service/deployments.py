"""What serving systems say that they run."""

import datetime

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from service import aliases, errors, tables, versions


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
    return (
        version.state in versions.SERVABLE
        and aliases.missing_erasures(session, model, version) == 0
    )
