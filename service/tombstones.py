"""What is left of what was erased: keyed hashes, by which it is known again and never returned.

A mark is an HMAC-SHA-256 under a key of this installation (RFC 2104): whoever has the database, a
report or a manifest but not the key can neither read an id out of it nor try whether it was named.
Ids are marked within their dataset, content everywhere: the same picture under another name is the
same picture.
"""

import contextlib
import functools
import hashlib
import hmac
import os
import secrets
import tempfile
import uuid
from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy import orm

from service import database, storage, tables

KEY_BYTES = 32
_KEY_FILE = "tombstone.key"
PREFIX = "erased:"


def of_sample(dataset_id: uuid.UUID, sample_id: str) -> str:
    """The name under which an erased sample is still known; such a name stays as it is."""
    if sample_id.startswith(PREFIX):
        return sample_id
    return PREFIX + _mark("sample", dataset_id.hex, sample_id.encode()).hex()


def of_subject(dataset_id: uuid.UUID, subject_id: str) -> str:
    """The name under which a person is known whose samples were erased; likewise."""
    if subject_id.startswith(PREFIX):
        return subject_id
    return PREFIX + _mark("subject", dataset_id.hex, subject_id.encode()).hex()


def of_content(content_hash: bytes) -> bytes:
    """The mark of content, by its SHA-256; 32 bytes."""
    return _mark("content", "", content_hash)


def of_concept(concept: str) -> bytes:
    """The mark of a concept, as it is compared; 32 bytes."""
    return _mark("concept", "", concept.encode())


def of_targets(names: Iterable[str]) -> str:
    """One mark for all that a job forgets: pins it without repeating it; hexadecimal."""
    listed = b"".join(name.encode() + b"\0" for name in sorted(names))
    return _mark("targets", "", listed).hex()


def of_body(body: bytes) -> str:
    """The mark of what a client sent: the same again has the same; hexadecimal."""
    return _mark("body", "", body).hex()


def exist(session: orm.Session) -> bool:
    """Whether anything was ever disposed of."""
    return session.scalar(sa.select(tables.Tombstone.sample_mark).limit(1)) is not None


def marked_samples(
    session: orm.Session, dataset_id: uuid.UUID, condition: sa.ColumnElement[bool]
) -> list[str]:
    """The names of erased samples of a dataset that fulfil a condition on the tombstones."""
    stone = tables.Tombstone
    found = sa.select(stone.sample_mark).where(stone.dataset_id == dataset_id, condition)
    return list(session.scalars(found.order_by(stone.sample_mark)))


def known(
    session: orm.Session,
    dataset_id: uuid.UUID,
    sample_ids: Sequence[str],
    condition: sa.ColumnElement[bool],
) -> dict[str, str]:
    """Of these ids those of erased samples that fulfil a condition, with their present names."""
    if not sample_ids or not exist(session):
        return {}
    marks = {of_sample(dataset_id, sample_id): sample_id for sample_id in sample_ids}
    named = sa.any_(sa.literal(list(marks), database.Names()))
    is_named = tables.Tombstone.sample_mark == named
    found = marked_samples(session, dataset_id, sa.and_(is_named, condition))
    return {marks[mark]: mark for mark in found}


def _mark(kind: str, scope: str, value: bytes) -> bytes:
    message = b"\0".join((kind.encode(), scope.encode(), value))
    return hmac.digest(_key(), message, hashlib.sha256)


@functools.cache
def _key() -> bytes:
    """The installation's key, made on first use; without it what was erased is known no more."""
    path = storage.root() / _KEY_FILE
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=path.parent) as fresh:  # readable by its owner alone
            fresh.write(secrets.token_bytes(KEY_BYTES))
            fresh.flush()
            os.fsync(fresh.fileno())
            with contextlib.suppress(FileExistsError):  # another process was first: its key holds
                os.link(fresh.name, path)
    return _read(path.read_bytes())


def _read(key: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        msg = f"{_KEY_FILE} in the data folder has {len(key)} bytes, expected {KEY_BYTES}"
        raise RuntimeError(msg)
    return key
