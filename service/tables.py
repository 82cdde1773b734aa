"""Every table. ``Model`` is a registered neural network.

A job's ``line`` names what may have only one running job at a time.
Times are aware UTC. Ids are UUIDv7, made by PostgreSQL 18, so that they sort by creation.
"""

import datetime
import uuid
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql

NOW = sa.text("clock_timestamp()")


class Base(orm.DeclarativeBase):
    """Column types by annotation."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        str: sa.Text(),
        bytes: sa.LargeBinary(),
        uuid.UUID: sa.Uuid(),
        datetime.datetime: sa.DateTime(timezone=True),
        dict[str, Any]: postgresql.JSONB(none_as_null=True),
        list[Any]: postgresql.JSONB(none_as_null=True),
        list[str]: postgresql.ARRAY(sa.Text()),
    }
    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def core(entity: type[Base]) -> sa.Table:
    """The table of a class, for statements that shall not pass through the ORM."""
    return cast("sa.Table", entity.__table__)


def _id() -> orm.Mapped[uuid.UUID]:
    return orm.mapped_column(primary_key=True, server_default=sa.text("uuidv7()"))


def _created() -> orm.Mapped[datetime.datetime]:
    return orm.mapped_column(server_default=NOW)


def _to(target: str, *, primary_key: bool = False) -> orm.Mapped[uuid.UUID]:
    return orm.mapped_column(sa.ForeignKey(target), primary_key=primary_key)


# --- callers --------------------------------------------------------------------------------


class ApiKey(Base):
    """A caller. Only the SHA-256 of the key is kept (the key has 256 random bits)."""

    __tablename__ = "api_key"
    id: orm.Mapped[uuid.UUID] = _id()
    name: orm.Mapped[str]
    scopes: orm.Mapped[list[str]]
    key_hash: orm.Mapped[bytes] = orm.mapped_column(unique=True)
    created_at: orm.Mapped[datetime.datetime] = _created()
    revoked_at: orm.Mapped[datetime.datetime | None]


class IdempotencyRecord(Base):
    """The first answer to a key's ``Idempotency-Key``, replayed to repeats."""

    __tablename__ = "idempotency_record"
    api_key_id: orm.Mapped[uuid.UUID] = _to("api_key.id", primary_key=True)
    idempotency_key: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    body_digest: orm.Mapped[str]
    response: orm.Mapped[dict[str, Any] | None]
    created_at: orm.Mapped[datetime.datetime] = _created()


# --- data -----------------------------------------------------------------------------------

TRAIN = "train"
"""The split that a model was trained on."""


class Content(Base):
    """A file of the store, by SHA-256, from before it is there until after it is gone.

    ``created_at`` is when it last came.
    """

    __tablename__ = "content"
    digest: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    created_at: orm.Mapped[datetime.datetime] = _created()


class Blob(Base):
    """Content that was sent or may be served."""

    __tablename__ = "blob"
    digest: orm.Mapped[str] = orm.mapped_column(
        sa.ForeignKey("content.digest", ondelete="CASCADE"), primary_key=True
    )
    size: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)


class Dataset(Base):
    """A training set; its rows are in ``sample`` once ``status`` is ``ready``.

    ``class_sizes`` are the training samples of each label, as ``sample`` has them.
    """

    __tablename__ = "dataset"
    id: orm.Mapped[uuid.UUID] = _id()
    name: orm.Mapped[str] = orm.mapped_column(unique=True)
    status: orm.Mapped[str] = orm.mapped_column(server_default="ingesting")
    files: orm.Mapped[list[str]]
    rows: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, server_default="0")
    splits: orm.Mapped[dict[str, Any]] = orm.mapped_column(server_default="{}")
    label_names: orm.Mapped[list[str]] = orm.mapped_column(server_default="{}")
    class_sizes: orm.Mapped[dict[str, Any]] = orm.mapped_column(server_default="{}")
    errors: orm.Mapped[list[Any]] = orm.mapped_column(server_default="[]")
    created_at: orm.Mapped[datetime.datetime] = _created()


class Sample(Base):
    """One row of the training-set ledger: where its image lies and what it hashes to."""

    __tablename__ = "sample"
    __table_args__ = (
        sa.Index(None, "dataset_id", "label"),
        sa.Index(None, "dataset_id", "subject_id"),
    )
    dataset_id: orm.Mapped[uuid.UUID] = _to("dataset.id", primary_key=True)
    sample_id: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    split: orm.Mapped[str]
    label: orm.Mapped[int | None]
    text: orm.Mapped[str | None]
    subject_id: orm.Mapped[str | None]
    content_hash: orm.Mapped[bytes]
    file_index: orm.Mapped[int]
    row_group: orm.Mapped[int]
    row_index: orm.Mapped[int]


class Tombstone(Base):
    """What is left of an erased sample: keyed hashes and its label, see ``service.tombstones``."""

    __tablename__ = "tombstone"
    __table_args__ = (sa.Index(None, "dataset_id", "subject_mark"),)
    dataset_id: orm.Mapped[uuid.UUID] = _to("dataset.id", primary_key=True)
    sample_mark: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    subject_mark: orm.Mapped[str | None]
    content_mark: orm.Mapped[bytes] = orm.mapped_column(index=True)
    label: orm.Mapped[int | None]
    created_at: orm.Mapped[datetime.datetime] = _created()


class Condemned(Base):
    """Content that shall leave the store once nothing needs it and nobody reads it any more."""

    __tablename__ = "condemned"
    digest: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    created_at: orm.Mapped[datetime.datetime] = _created()


class Judge(Base):
    """The net that says what a generator draws, trained on a dataset; kept for later jobs.

    ``name`` says which kind of judge at which picture size; ``detail`` how good it is.
    """

    __tablename__ = "judge"
    dataset_id: orm.Mapped[uuid.UUID] = _to("dataset.id", primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    digest: orm.Mapped[str]
    detail: orm.Mapped[dict[str, Any]]
    created_at: orm.Mapped[datetime.datetime] = _created()


# --- registry -------------------------------------------------------------------------------


class Model(Base):
    """A registered neural network: a line of versions over one training set."""

    __tablename__ = "model"
    id: orm.Mapped[uuid.UUID] = _id()
    name: orm.Mapped[str] = orm.mapped_column(unique=True)
    family: orm.Mapped[str]
    dataset_id: orm.Mapped[uuid.UUID] = _to("dataset.id")
    dataset: orm.Mapped[Dataset] = orm.relationship()
    policy: orm.Mapped[dict[str, Any]]
    head: orm.Mapped[int | None]  # the version that the next job starts from
    # Training samples of the dataset when it was registered. What was deleted since the model has
    # erased, and that is counted too.
    training_size: orm.Mapped[int]
    created_at: orm.Mapped[datetime.datetime] = _created()


class Version(Base):
    """An immutable set of files of one model, numbered from 1."""

    __tablename__ = "version"
    __table_args__ = (sa.UniqueConstraint("model_id", "number"),)
    id: orm.Mapped[uuid.UUID] = _id()
    model_id: orm.Mapped[uuid.UUID] = _to("model.id")
    number: orm.Mapped[int]
    state: orm.Mapped[str] = orm.mapped_column(server_default="staged")
    parent: orm.Mapped[int | None]
    job_id: orm.Mapped[uuid.UUID | None]
    manifest: orm.Mapped[bytes]
    manifest_digest: orm.Mapped[str] = orm.mapped_column(index=True)
    lineage: orm.Mapped[dict[str, Any]] = orm.mapped_column(server_default="{}")
    report: orm.Mapped[dict[str, Any] | None]
    errors: orm.Mapped[list[Any]] = orm.mapped_column(server_default="[]")
    created_at: orm.Mapped[datetime.datetime] = _created()
    published_at: orm.Mapped[datetime.datetime | None]
    revoked_at: orm.Mapped[datetime.datetime | None]
    revoke_reason: orm.Mapped[str | None]
    superseded_at: orm.Mapped[datetime.datetime | None]
    purged_at: orm.Mapped[datetime.datetime | None]


class VersionFile(Base):
    """One file of a version."""

    __tablename__ = "version_file"
    version_id: orm.Mapped[uuid.UUID] = orm.mapped_column(
        sa.ForeignKey("version.id", ondelete="CASCADE"), primary_key=True
    )
    path: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    digest: orm.Mapped[str] = orm.mapped_column(sa.ForeignKey("blob.digest"), index=True)
    size: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)


class Alias(Base):
    """A pull pointer; ``serial`` grows with every move."""

    __tablename__ = "alias"
    model_id: orm.Mapped[uuid.UUID] = _to("model.id", primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    version: orm.Mapped[int]
    serial: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, server_default="1")
    moved_at: orm.Mapped[datetime.datetime] = _created()


class DeploymentReport(Base):
    """What a serving system says it runs now."""

    __tablename__ = "deployment_report"
    deployment: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    model_id: orm.Mapped[uuid.UUID] = _to("model.id", primary_key=True)
    version: orm.Mapped[int]
    manifest_digest: orm.Mapped[str]
    loaded_at: orm.Mapped[datetime.datetime]
    reported_at: orm.Mapped[datetime.datetime] = _created()


# --- forgetting -----------------------------------------------------------------------------


class ForgetRequest(Base):
    """One demand; it never ends as failed."""

    __tablename__ = "forget_request"
    __table_args__ = (
        sa.Index(None, "model_id", "status"),
        sa.Index(None, "model_id", "received_at"),
    )
    id: orm.Mapped[uuid.UUID] = _id()
    model_id: orm.Mapped[uuid.UUID] = _to("model.id")
    api_key_id: orm.Mapped[uuid.UUID] = _to("api_key.id")
    subject_request_id: orm.Mapped[uuid.UUID | None] = orm.mapped_column(unique=True)
    body: orm.Mapped[dict[str, Any]]
    body_digest: orm.Mapped[str]
    status: orm.Mapped[str] = orm.mapped_column(server_default="pending")
    stage: orm.Mapped[str] = orm.mapped_column(server_default="received")
    reason: orm.Mapped[str | None]
    received_at: orm.Mapped[datetime.datetime] = _created()
    due_at: orm.Mapped[datetime.datetime] = orm.mapped_column(
        # GDPR Art. 12(3): one calendar month; PostgreSQL clamps to the end of a shorter month.
        server_default=sa.text(
            "timezone('UTC', timezone('UTC', clock_timestamp()) + interval '1 month')"
        ),
        index=True,
    )
    updated_at: orm.Mapped[datetime.datetime] = _created()
    completed_at: orm.Mapped[datetime.datetime | None]
    matched: orm.Mapped[int] = orm.mapped_column(server_default="0")
    already_erased: orm.Mapped[int] = orm.mapped_column(server_default="0")
    pending: orm.Mapped[int] = orm.mapped_column(server_default="0")
    unknown: orm.Mapped[int] = orm.mapped_column(server_default="0")
    result_version: orm.Mapped[int | None]
    extended_months: orm.Mapped[int] = orm.mapped_column(server_default="0")
    paused_at: orm.Mapped[datetime.datetime | None]  # since when the clock stands still
    alarm_percent: orm.Mapped[int] = orm.mapped_column(server_default="0")  # told last


class Batch(Base):
    """Requests that one job serves; membership is immutable once sealed.

    ``parent_id`` is the batch that failed and was split into this one and another.
    """

    __tablename__ = "batch"
    __table_args__ = (
        sa.Index(
            "uq_batch_open",
            "model_id",
            "profile",
            unique=True,
            postgresql_where=sa.text("state = 'open'"),
        ),
    )
    id: orm.Mapped[uuid.UUID] = _id()
    model_id: orm.Mapped[uuid.UUID] = _to("model.id")
    kind: orm.Mapped[str]
    profile: orm.Mapped[str]  # kind and pinned method: what may share one job
    method: orm.Mapped[dict[str, Any]]
    parent_id: orm.Mapped[uuid.UUID | None] = orm.mapped_column(
        sa.ForeignKey("batch.id"), index=True
    )
    state: orm.Mapped[str] = orm.mapped_column(server_default="open")
    opened_at: orm.Mapped[datetime.datetime] = _created()
    sealed_at: orm.Mapped[datetime.datetime | None]
    result_version: orm.Mapped[int | None]


class BatchMember(Base):
    """A request's part in a batch."""

    __tablename__ = "batch_member"
    __table_args__ = (sa.Index(None, "request_id"),)
    batch_id: orm.Mapped[uuid.UUID] = _to("batch.id", primary_key=True)
    request_id: orm.Mapped[uuid.UUID] = _to("forget_request.id", primary_key=True)
    created_at: orm.Mapped[datetime.datetime] = _created()


class RequestSample(Base):
    """A sample that a request names."""

    __tablename__ = "request_sample"
    request_id: orm.Mapped[uuid.UUID] = _to("forget_request.id", primary_key=True)
    sample_id: orm.Mapped[str] = orm.mapped_column(primary_key=True)


class Erasure(Base):
    """A training sample that must be, or has been, forgotten by a model; the set only grows.

    While ``version`` is null the erasure is under way in ``batch_id``; afterwards ``version`` is
    the first one without the sample. The primary key makes two demands for one sample meet here.
    """

    __tablename__ = "erasure"
    # No foreign key: the batch is of this model, and a second one costs as much as the first.
    model_id: orm.Mapped[uuid.UUID] = orm.mapped_column(primary_key=True)
    sample_id: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    batch_id: orm.Mapped[uuid.UUID] = orm.mapped_column(sa.ForeignKey("batch.id"), index=True)
    version: orm.Mapped[int | None]
    erased_at: orm.Mapped[datetime.datetime | None]


class RequestConcept(Base):
    """A concept that a request names, as it is written in :class:`ConceptErasure`."""

    __tablename__ = "request_concept"
    request_id: orm.Mapped[uuid.UUID] = _to("forget_request.id", primary_key=True)
    concept: orm.Mapped[str] = orm.mapped_column(primary_key=True)


class ConceptErasure(Base):
    """A concept that a model must no longer draw, or draws no longer; like :class:`Erasure`.

    ``concept`` is in lower case with single spaces: two demands for one concept meet here, and the
    first one's replacement and prompts hold.
    """

    __tablename__ = "concept_erasure"
    model_id: orm.Mapped[uuid.UUID] = _to("model.id", primary_key=True)
    concept: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    replacement: orm.Mapped[str]
    prompts: orm.Mapped[list[str]]
    batch_id: orm.Mapped[uuid.UUID] = orm.mapped_column(sa.ForeignKey("batch.id"), index=True)
    version: orm.Mapped[int | None]
    erased_at: orm.Mapped[datetime.datetime | None]


class ErasureCount(Base):
    """How many rows ``erasure`` has for a model, so that a submission need not count them.

    In all (``label`` -1) and of each label. The count is the sum over shards: every connection adds
    to its own, so that submissions do not wait for each other on one row.
    """

    __tablename__ = "erasure_count"
    model_id: orm.Mapped[uuid.UUID] = _to("model.id", primary_key=True)
    label: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    shard: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    erasures: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)


# --- work -----------------------------------------------------------------------------------


class Job(Base):
    """Work under a lease. ``line`` names what may have only one running job at a time."""

    __tablename__ = "job"
    __table_args__ = (
        sa.Index(
            "uq_job_running_line",
            "line",
            unique=True,
            postgresql_where=sa.text("status = 'running'"),
        ),
        sa.Index(
            "ix_job_queued",
            "queue",
            "due_at",
            postgresql_where=sa.text("status IN ('queued', 'running')"),
        ),
        sa.Index(
            "ix_job_line",
            "line",
            "queue",
            "due_at",
            postgresql_where=sa.text("status = 'queued'"),
        ),
        sa.Index(None, "subject_id"),
    )
    id: orm.Mapped[uuid.UUID] = _id()
    kind: orm.Mapped[str]
    queue: orm.Mapped[str]
    line: orm.Mapped[str]
    subject_id: orm.Mapped[uuid.UUID]
    status: orm.Mapped[str] = orm.mapped_column(server_default="queued")
    due_at: orm.Mapped[datetime.datetime]
    not_before: orm.Mapped[datetime.datetime] = _created()
    owner: orm.Mapped[str | None]
    fence: orm.Mapped[int | None] = orm.mapped_column(sa.BigInteger)
    lease_expires_at: orm.Mapped[datetime.datetime | None]
    attempts: orm.Mapped[int] = orm.mapped_column(server_default="0")
    max_attempts: orm.Mapped[int]
    inputs: orm.Mapped[dict[str, Any] | None]
    stage: orm.Mapped[str] = orm.mapped_column(server_default="queued")
    step: orm.Mapped[int] = orm.mapped_column(server_default="0")
    total_steps: orm.Mapped[int] = orm.mapped_column(server_default="0")
    eta_seconds: orm.Mapped[float | None]
    cancel_requested: orm.Mapped[bool] = orm.mapped_column(server_default="false")
    error: orm.Mapped[dict[str, Any] | None]
    created_at: orm.Mapped[datetime.datetime] = _created()
    started_at: orm.Mapped[datetime.datetime | None]
    finished_at: orm.Mapped[datetime.datetime | None]


class JobStep(Base):
    """A finished stage of a job and the digest of the artifact it committed."""

    __tablename__ = "job_step"
    job_id: orm.Mapped[uuid.UUID] = _to("job.id", primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    fence: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)
    artifact_digest: orm.Mapped[str]
    run_seconds: orm.Mapped[float]
    created_at: orm.Mapped[datetime.datetime] = _created()


class Audit(Base):
    """A closer look at one unlearned version, on request; its job's status is its own."""

    __tablename__ = "audit"
    id: orm.Mapped[uuid.UUID] = _id()
    version_id: orm.Mapped[uuid.UUID] = orm.mapped_column(sa.ForeignKey("version.id"), index=True)
    options: orm.Mapped[dict[str, Any]]
    result: orm.Mapped[dict[str, Any] | None]
    created_at: orm.Mapped[datetime.datetime] = _created()


class ShadowPair(Base):
    """Confidences of one pair of shadow nets, kept for later audits.

    ``name`` holds a digest of all that the nets were made from but the images; these hang on the
    base version.
    """

    __tablename__ = "shadow_pair"
    base_version_id: orm.Mapped[uuid.UUID] = _to("version.id", primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    artifact_digest: orm.Mapped[str]
    created_at: orm.Mapped[datetime.datetime] = _created()


# --- telling --------------------------------------------------------------------------------


class Event(Base):
    """Something that happened to a request or a job, in order, for event streams."""

    __tablename__ = "event"
    __table_args__ = (sa.Index(None, "subject_id", "id"),)
    id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, sa.Identity(), primary_key=True)
    subject_id: orm.Mapped[uuid.UUID]
    type: orm.Mapped[str]
    data: orm.Mapped[dict[str, Any]]
    created_at: orm.Mapped[datetime.datetime] = _created()


class OutboxMessage(Base):
    """A message that must leave, at least once; written with what it tells of."""

    __tablename__ = "outbox_message"
    __table_args__ = (
        sa.Index("ix_outbox_unsent", "id", postgresql_where=sa.text("sent_at IS NULL")),
    )
    id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, sa.Identity(), primary_key=True)
    topic: orm.Mapped[str]
    payload: orm.Mapped[dict[str, Any]]
    created_at: orm.Mapped[datetime.datetime] = _created()
    sent_at: orm.Mapped[datetime.datetime | None]


_CHAINED = sa.text("position IS NOT NULL")


class AuditEntry(Base):
    """Who did what to which object. Counts and digests only, never an identity.

    Position and digests come afterwards, from ``service.audit_trail``.
    """

    __tablename__ = "audit_entry"
    __table_args__ = (
        # Parts: writing an entry touches the last one alone.
        sa.Index("ix_audit_entry_chained", "position", unique=True, postgresql_where=_CHAINED),
        sa.Index("ix_audit_entry_object", "object_id", "position", postgresql_where=_CHAINED),
        sa.Index("ix_audit_entry_unchained", "id", postgresql_where=sa.text("position IS NULL")),
    )
    id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, sa.Identity(), primary_key=True)
    actor: orm.Mapped[str]
    action: orm.Mapped[str]
    object_id: orm.Mapped[str]
    detail: orm.Mapped[dict[str, Any]]
    created_at: orm.Mapped[datetime.datetime] = _created()
    position: orm.Mapped[int | None] = orm.mapped_column(sa.BigInteger)
    previous_digest: orm.Mapped[str | None]
    digest: orm.Mapped[str | None]


FENCE = sa.Sequence("fence", metadata=Base.metadata)  # grows with every claim of any job
