"""Immutable versions of a model: files by digest, a manifest, a state.

States: ``staged`` (not validated, or did not pass) → ``verified`` (passed, not yet served) →
``published`` → ``superseded`` (an alias moved on) → ``revoked`` (410 from then on) → ``purged``.
"""

import datetime
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from service import artifacts, database, errors, tables, telling

SERVABLE = frozenset({"verified", "published", "superseded"})
WITHDRAWN = frozenset({"revoked", "purged"})
SHA_LENGTH = 40  # what hub clients take for a commit


def add(
    session: orm.Session,
    model: tables.Model,
    files: Sequence[artifacts.FileRef],
    *,
    lineage: Mapping[str, Any],
    parent: int | None = None,
    job_id: uuid.UUID | None = None,
    report: dict[str, Any] | None = None,
) -> tables.Version:
    """Write a staged version and its manifest. The caller holds the model row's lock."""
    number = next_number(session, model)
    created_at = database.now(session)
    own = number if lineage["anchor"] is None else lineage["anchor"]
    full_lineage = {**lineage, "anchor": own}
    manifest = json.dumps(
        {
            "model": model.name,
            "version": number,
            "lineage": {**full_lineage, "parent": parent},
            "created_at": _timestamp(created_at),
            "files": [
                {"path": file.path, "digest": file.digest, "size": file.size}
                for file in sorted(files, key=lambda file: file.path)
            ],
        },
        sort_keys=True,
        separators=(",", ":"),
    ).encode()
    version = tables.Version(
        model_id=model.id,
        number=number,
        parent=parent,
        job_id=job_id,
        manifest=manifest,
        manifest_digest=hashlib.sha256(manifest).hexdigest(),
        lineage=full_lineage,
        report=report,
        created_at=created_at,
    )
    session.add(version)
    session.flush()
    session.add_all(
        tables.VersionFile(
            version_id=version.id, path=file.path, digest=file.digest, size=file.size
        )
        for file in files
    )
    session.flush()
    return version


def next_number(session: orm.Session, model: tables.Model) -> int:
    """The number that the next version of a model gets."""
    newest = session.scalar(
        sa.select(sa.func.max(tables.Version.number)).where(tables.Version.model_id == model.id)
    )
    return (newest or 0) + 1


def by_number(session: orm.Session, model: tables.Model, number: int) -> tables.Version:
    """A version that may be seen; raises :class:`errors.NotFound`."""
    version = session.scalar(
        sa.select(tables.Version).where(
            tables.Version.model_id == model.id, tables.Version.number == number
        )
    )
    if version is None:
        raise errors.NotFound("version-not-found", f"model {model.name!r} has no version {number}")
    return version


def refuse_unservable(model: tables.Model, version: tables.Version) -> None:
    """Refuse the weights of a version that was revoked, or that did not pass (yet).

    Raises :class:`errors.Gone` or :class:`errors.NotFound`. What is known of it may be read.
    """
    refuse_revoked(model, version)
    if version.state not in SERVABLE:
        detail = f"version {version.number} of model {model.name!r} is {version.state}: not passed"
        raise errors.NotFound("version-not-servable", detail)


def refuse_revoked(model: tables.Model, version: tables.Version) -> None:
    """Raise :class:`errors.Gone` for a version that must not be served any more."""
    if version.state in WITHDRAWN:
        detail = f"version {version.number} of model {model.name!r} was revoked"
        raise errors.Gone("version-revoked", detail)


def listing(session: orm.Session, model: tables.Model) -> Sequence[tables.Version]:
    """All versions of a model, newest first."""
    return session.scalars(
        sa.select(tables.Version)
        .where(tables.Version.model_id == model.id)
        .order_by(tables.Version.number.desc())
    ).all()


def withdrawn(session: orm.Session, model: tables.Model) -> int:
    """How many versions of a model were revoked."""
    version = tables.Version
    revoked = sa.select(sa.func.count()).where(
        version.model_id == model.id, version.state.in_(WITHDRAWN)
    )
    return session.scalar(revoked) or 0


def files_of(session: orm.Session, version: tables.Version) -> list[artifacts.FileRef]:
    """The files of a version by path."""
    rows = session.scalars(
        sa.select(tables.VersionFile)
        .where(tables.VersionFile.version_id == version.id)
        .order_by(tables.VersionFile.path)
    )
    return [artifacts.FileRef(row.path, row.digest, row.size) for row in rows]


def revoke(
    session: orm.Session, actor: str, model: tables.Model, number: int, reason: str
) -> tables.Version:
    """Refuse a version from now on (410).

    Raises :class:`errors.Conflict` (``version-in-use``) while an alias points at it.
    """
    version = by_number(session, model, number)
    aliases = session.scalars(
        sa.select(tables.Alias.name).where(
            tables.Alias.model_id == model.id, tables.Alias.version == number
        )
    ).all()
    if aliases:
        detail = f"alias {', '.join(aliases)} points at version {number}; move it first"
        raise errors.Conflict("version-in-use", detail)
    if version.state not in WITHDRAWN:
        version.state = "revoked"
        version.revoke_reason = reason
        version.revoked_at = sa.func.clock_timestamp()
        telling.audit(session, actor, "version.revoke", version.id, number=number)
        telling.changed(session, model.id)
        session.flush()
        session.refresh(version)
    return version


def refuse_unservable_blob(session: orm.Session, digest: str, *, uploads: bool) -> None:
    """Refuse content of no version that may be served.

    Raises :class:`errors.Gone` where only revoked versions hold it, or it is about to be destroyed;
    :class:`errors.NotFound` where it belongs to none, or to one that did not pass (yet): training
    data, or an upload that is under way. Who ``uploads`` sees those.
    """
    states = set(
        session.scalars(
            sa.select(tables.Version.state)
            .join(tables.VersionFile, tables.VersionFile.version_id == tables.Version.id)
            .where(tables.VersionFile.digest == digest)
        )
    )
    if states & SERVABLE:
        return
    condemned = session.get(tables.Condemned, digest) is not None
    if states <= WITHDRAWN if states else condemned:
        raise errors.Gone("version-revoked", f"blob {digest} belongs to revoked versions only")
    if not uploads:
        raise errors.NotFound("blob-not-found", f"no blob {digest} of a version that is served")


def forgets(version: tables.Version) -> list[int]:
    """The versions whose erasures a version has: its own, and those before it."""
    return [*version.lineage.get("forgets", []), version.number]


def sha_of(version: tables.Version) -> str:
    """The commit-like name that hub clients use: a truncated manifest digest."""
    return version.manifest_digest[:SHA_LENGTH]


def _timestamp(moment: datetime.datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
