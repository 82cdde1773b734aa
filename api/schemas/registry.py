"""Bodies of blobs, datasets, models, versions, aliases, deployments and API keys."""

import datetime
import uuid
from typing import Annotated, Any, Literal

import pydantic

from api.schemas import base
from salun_core import specs

Scope = Literal[
    "requests:submit",
    "requests:read",
    "requests:approve",
    "models:write",
    "models:pull",
    "audit:read",
    "admin",
]


class BlobOut(base.Output):
    """Content that is in the store."""

    digest: str
    size: int


class DatasetIn(base.Input):
    """Parquet files, uploaded as blobs before."""

    name: base.Name
    files: Annotated[tuple[base.Digest, ...], pydantic.Field(min_length=1, max_length=10_000)]


class IngestionProgress(base.Output):
    """Rows read so far."""

    rows: int
    total_rows: int
    fraction: float


class DatasetOut(base.Output):
    """A training set and how far its ingestion is. Audit events know it by ``id``."""

    id: uuid.UUID
    name: str
    status: Literal["ingesting", "ready", "failed"]
    rows: int
    splits: dict[str, int]
    label_names: list[str]
    errors: list[base.ProblemItem]
    job_id: uuid.UUID | None
    progress: IngestionProgress | None
    created_at: datetime.datetime


class DatasetsOut(base.Output):
    """Every training set, by name."""

    items: list[DatasetOut]


class ModelIn(base.Input):
    """A neural network to register."""

    name: base.Name
    family: specs.Family
    dataset: base.Name
    policy: dict[str, Any] | None = pydantic.Field(
        default=None,
        description=(
            "what its owner decides once, such as auto_publish, max_forget_share, acceptance and, "
            "for generators, sampling {steps, guidance_scale, images}: how it is served"
        ),
    )


class ModelOut(base.Output):
    """A registered neural network. Audit events know it by ``id``."""

    id: uuid.UUID
    name: str
    family: str
    dataset: str
    policy: dict[str, Any]
    aliases: dict[str, int]
    head: int | None
    versions: int
    created_at: datetime.datetime


class ModelsOut(base.Output):
    """Every model, by name."""

    items: list[ModelOut]


class VersionFileIn(base.Input):
    """A file of a version, uploaded as a blob before."""

    path: Annotated[str, pydantic.Field(min_length=1, max_length=1024)]
    digest: base.Digest
    size: Annotated[int, pydantic.Field(ge=0)]


class VersionIn(base.Input):
    """The files of a base version."""

    files: Annotated[tuple[VersionFileIn, ...], pydantic.Field(min_length=1, max_length=1000)]
    trained_without: Annotated[int, pydantic.Field(ge=1, lt=2**31)] | None = pydantic.Field(
        default=None,
        description=(
            "a version of the model: the net was trained on data that lacked all that this version "
            "has forgotten; needed once the model has forgotten something"
        ),
    )


class VersionFileOut(base.Output):
    """A file of a version."""

    path: str
    digest: str
    size: int


class VersionOut(base.Output):
    """An immutable version. Audit events know it by ``id``."""

    id: uuid.UUID
    model: str
    version: int
    state: Literal["staged", "verified", "published", "superseded", "revoked", "purged"]
    parent: int | None
    lineage: dict[str, Any]
    manifest_digest: str
    files: list[VersionFileOut]
    errors: list[base.ProblemItem]
    job_id: uuid.UUID | None
    created_at: datetime.datetime
    published_at: datetime.datetime | None
    superseded_at: datetime.datetime | None
    revoked_at: datetime.datetime | None
    revoke_reason: str | None
    purged_at: datetime.datetime | None


class VersionsOut(base.Output):
    """The versions of a model, newest first."""

    items: list[VersionOut]


class AliasIn(base.Input):
    """Where an alias shall point."""

    version: Annotated[int, pydantic.Field(ge=1, lt=2**31)]


class PointerOut(base.Output):
    """The pull pointer."""

    model: str
    alias: str
    serial: int
    version: int
    manifest_digest: str
    min_version: int
    issued_at: datetime.datetime
    expires_at: datetime.datetime


class DeploymentReportIn(base.Input):
    """What a serving system runs."""

    model: base.Name
    version: Annotated[int, pydantic.Field(ge=1, lt=2**31)]
    manifest_digest: base.Digest
    loaded_at: base.Moment


class DeploymentReportOut(base.Output):
    """The report as recorded, and whether what it runs may still be served."""

    deployment: str
    model: str
    version: int
    manifest_digest: str
    up_to_date: bool
    min_version: int


class DeploymentOut(base.Output):
    """What a deployment said last, and whether what it runs may still be served."""

    deployment: str
    version: int
    manifest_digest: str
    loaded_at: datetime.datetime
    reported_at: datetime.datetime
    up_to_date: bool


class DeploymentsOut(base.Output):
    """The deployments of a model, by name."""

    items: list[DeploymentOut]


class ApiKeyIn(base.Input):
    """A key to make."""

    name: Annotated[specs.Identifier, pydantic.Field(max_length=128)]
    scopes: Annotated[tuple[Scope, ...], pydantic.Field(min_length=1)]


class ApiKeyOut(base.Output):
    """A key without its secret."""

    id: uuid.UUID
    name: str
    scopes: list[str]
    created_at: datetime.datetime
    revoked_at: datetime.datetime | None


class ApiKeyCreated(base.Output):
    """A new key; ``key`` is shown this once."""

    id: uuid.UUID
    name: str
    scopes: list[str]
    key: str


class ApiKeysOut(base.Output):
    """All keys."""

    items: list[ApiKeyOut]
