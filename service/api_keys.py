"""API keys: made once, kept as a hash, carrying scopes."""

import hashlib
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa
from sqlalchemy import orm

from service import errors, tables, telling

Scope = Literal[
    "requests:submit",
    "requests:read",
    "requests:approve",
    "models:write",
    "models:pull",
    "audit:read",
    "admin",
]
_PREFIX = "salun_"


@dataclass(frozen=True)
class Caller:
    """Who calls, and what the key allows."""

    key_id: uuid.UUID
    name: str
    scopes: frozenset[str]

    @property
    def actor(self) -> str:
        """The name that audit entries carry."""
        return f"key:{self.key_id}"

    def may(self, scope: Scope) -> bool:
        """Whether the key has the scope, or ``admin``."""
        return bool(self.scopes & {scope, "admin"})

    def require(self, scope: Scope) -> None:
        """Raise :class:`errors.Forbidden` unless the key has the scope, or ``admin``."""
        if not self.may(scope):
            got = ", ".join(sorted(self.scopes))
            detail = f"this key has the scopes {got}; this call needs {scope}"
            raise errors.Forbidden("insufficient-scope", detail)


def create(
    session: orm.Session, actor: str, name: str, scopes: Sequence[str]
) -> tuple[tables.ApiKey, str]:
    """Make a key; the second value is the key itself, which nobody can read again."""
    key = _PREFIX + secrets.token_urlsafe(32)
    row = tables.ApiKey(name=name, scopes=sorted(set(scopes)), key_hash=_hash(key))
    session.add(row)
    session.flush()
    telling.audit(session, actor, "api_key.create", row.id, scopes=row.scopes)
    return row, key


def identify(session: orm.Session, key: str) -> Caller | None:
    """Who holds this key, or ``None`` for one that is unknown or revoked."""
    row = session.execute(_IDENTIFY, {"hash": _hash(key)}).one_or_none()
    return None if row is None else Caller(row.id, row.name, frozenset(row.scopes))


def listing(session: orm.Session) -> Sequence[tables.ApiKey]:
    """All keys, oldest first."""
    return session.scalars(sa.select(tables.ApiKey).order_by(tables.ApiKey.id)).all()


def revoke(session: orm.Session, actor: str, key_id: uuid.UUID) -> tables.ApiKey:
    """End a key; repeating it changes nothing."""
    row = session.get(tables.ApiKey, key_id, with_for_update=True)
    if row is None:
        raise errors.NotFound("api-key-not-found", f"no API key {key_id}")
    if row.revoked_at is None:
        row.revoked_at = sa.func.clock_timestamp()
        session.flush()
        session.refresh(row)
        telling.audit(session, actor, "api_key.revoke", key_id)
    return row


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


_IDENTIFY = sa.select(tables.ApiKey.id, tables.ApiKey.name, tables.ApiKey.scopes).where(
    tables.ApiKey.key_hash == sa.bindparam("hash"), tables.ApiKey.revoked_at.is_(None)
)
