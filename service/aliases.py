"""Pull pointers: which version serving systems shall load. An alias never moves to one that
forgot less."""

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

from service import concepts, errors, settings, tables, telling, versions

# What the hub protocol reads as a number or a sha before it looks for an alias.
_MEANS_A_VERSION = re.compile(r"[0-9]+|[0-9a-f]{40}")


@dataclass(frozen=True)
class Pointer:
    """What ``GET /v1/models/{m}/aliases/{a}`` tells; ``withdrawn`` counts revoked versions."""

    model: str
    alias: str
    serial: int
    version: int
    manifest_digest: str
    min_version: int
    withdrawn: int
    issued_at: datetime.datetime
    expires_at: datetime.datetime


def point(session: orm.Session, model: tables.Model, name: str) -> Pointer:
    """The pointer as it stands; raises :class:`errors.NotFound`."""
    row = session.execute(
        sa.select(tables.Alias, tables.Version.manifest_digest)
        .join(
            tables.Version,
            sa.and_(
                tables.Version.model_id == tables.Alias.model_id,
                tables.Version.number == tables.Alias.version,
            ),
        )
        .where(tables.Alias.model_id == model.id, tables.Alias.name == name)
    ).one_or_none()
    if row is None:
        raise errors.NotFound("alias-not-found", f"model {model.name!r} has no alias {name[:80]!r}")
    alias, manifest_digest = row
    ttl = datetime.timedelta(seconds=settings.load().pointer_ttl_seconds)
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return Pointer(
        model=model.name,
        alias=name,
        serial=alias.serial,
        version=alias.version,
        manifest_digest=manifest_digest,
        min_version=min_version(session, model),
        withdrawn=versions.withdrawn(session, model),
        issued_at=now,
        expires_at=now + ttl,
    )


def listing(session: orm.Session, model: tables.Model) -> dict[str, int]:
    """Every alias of a model and the version it points at."""
    return dict(
        session.execute(
            sa.select(tables.Alias.name, tables.Alias.version)
            .where(tables.Alias.model_id == model.id)
            .order_by(tables.Alias.name)
        ).all()
    )


def move_by_hand(
    session: orm.Session,
    actor: str,
    model: tables.Model,
    name: str,
    number: int,
    if_serial: int | None,
) -> None:
    """Move or make an alias on an operator's word; ``if_serial`` is what their ``If-Match`` names.

    Raises :class:`errors.Invalid` for a name that stands for a version,
    :class:`errors.PreconditionFailed`, :class:`errors.Gone` and, for a version that lacks a
    completed erasure, :class:`errors.Conflict` (``erasure-regression``).
    """
    if name == "main" or _MEANS_A_VERSION.fullmatch(name):
        detail = f"got alias {name!r}, which clients take for a version; choose another name"
        problem = errors.Problem("/path/alias", "reserved-name", detail)
        raise errors.Invalid("invalid-request", detail, [problem])
    current = session.get(tables.Alias, (model.id, name), with_for_update=True)
    serial = None if current is None else current.serial
    if serial != if_serial:
        detail = (
            f"If-Match names another state of alias {name!r}; it has serial {serial}: read it again"
        )
        raise errors.PreconditionFailed("precondition-failed", detail)
    version = versions.by_number(session, model, number)
    versions.refuse_revoked(model, version)
    if version.state not in versions.SERVABLE:
        detail = f"version {number} is {version.state}; expected one that passed verification"
        raise errors.Conflict("version-not-servable", detail)
    lacking = missing_erasures(session, model, version)
    if lacking:
        detail = (
            f"version {number} still holds {lacking} samples or concepts whose erasure was "
            f"completed; expected version {min_version(session, model)} or one made from it"
        )
        raise errors.Conflict("erasure-regression", detail)
    move(session, actor, model, name, version)


def move(
    session: orm.Session, actor: str, model: tables.Model, name: str, version: tables.Version
) -> None:
    """Point an alias at a version that may be served, and mark what it leaves as superseded."""
    left = session.scalar(
        sa.select(tables.Alias.version).where(
            tables.Alias.model_id == model.id, tables.Alias.name == name
        )
    )
    alias = postgresql.insert(tables.Alias).values(
        model_id=model.id, name=name, version=version.number
    )
    session.execute(
        alias.on_conflict_do_update(
            index_elements=["model_id", "name"],
            set_={
                "version": version.number,
                "serial": tables.Alias.serial + 1,
                "moved_at": sa.func.clock_timestamp(),
            },
        )
    )
    version.state = "published"
    if version.published_at is None:
        version.published_at = sa.func.clock_timestamp()
    if left is not None and left != version.number:
        _supersede(session, model, left)
    telling.audit(session, actor, "alias.move", model.id, alias=name, version=version.number)
    telling.changed(session, model.id)


def missing_erasures(session: orm.Session, model: tables.Model, version: tables.Version) -> int:
    """How many completed erasures a version lacks: those first made in none that it follows."""
    return erasures_beyond(session, model, versions.forgets(version), completed=True)


def erasures_beyond(
    session: orm.Session, model: tables.Model, line: Sequence[int], *, completed: bool = False
) -> int:
    """How many erasures were first made in none of these versions; all, or the completed only."""
    erased = _erased_in(model).subquery()
    beyond = sa.select(sa.func.count()).where(erased.c.version.not_in(line))
    if completed:
        beyond = beyond.where(erased.c.erased_at.is_not(None))
    return session.scalar(beyond) or 0


def missing_since(
    session: orm.Session, model: tables.Model, version: tables.Version
) -> datetime.datetime | None:
    """When the oldest completed erasure that a version lacks was first served; ``None``: none."""
    erased = _erased_in(model).subquery()
    lacking = erased.c.version.not_in(versions.forgets(version))
    oldest: datetime.datetime | None = session.scalar(
        sa.select(sa.func.min(erased.c.erased_at)).where(lacking)
    )
    return oldest


def min_version(session: orm.Session, model: tables.Model) -> int:
    """The oldest version number that may still be served: the newest completed erasure's."""
    erased = _erased_in(model).subquery()
    newest = sa.select(sa.func.max(erased.c.version)).where(erased.c.erased_at.is_not(None))
    return session.scalar(newest) or 1


def _erased_in(
    model: tables.Model,
) -> sa.CompoundSelect[int | None, datetime.datetime | None]:
    """``(version, erased_at)`` of every sample and concept that a version lacks.

    The erasure is completed once it has a time: then that version, or a later one, was served.
    """
    samples = sa.select(tables.Erasure.version, tables.Erasure.erased_at).where(
        tables.Erasure.model_id == model.id, tables.Erasure.version.is_not(None)
    )
    return samples.union_all(concepts.versions_of(model.id))


def _supersede(session: orm.Session, model: tables.Model, number: int) -> None:
    still_pointed_at = session.scalar(
        sa.select(sa.func.count())
        .select_from(tables.Alias)
        .where(tables.Alias.model_id == model.id, tables.Alias.version == number)
    )
    if not still_pointed_at:
        session.execute(
            sa.update(tables.Version)
            .where(
                tables.Version.model_id == model.id,
                tables.Version.number == number,
                tables.Version.state == "published",
            )
            .values(state="superseded", superseded_at=sa.func.clock_timestamp())
        )
