"""Bodies of ``/v1/forget-requests``."""

import datetime
import uuid
from typing import Annotated, Any, Literal

import pydantic

from api.schemas import base
from salun_core import specs

Status = Literal["pending", "in_progress", "completed", "action_required", "denied", "cancelled"]
Stage = Literal[
    "received",
    "awaiting_approval",
    "queued",
    "sealed",
    "computing_saliency",
    "unlearning",
    "verifying",
    "publishing",
    "propagating",
    "done",
]


class Attestation(base.Input):
    """How the identity behind the demand was checked."""

    identity_verified: bool
    method: Annotated[specs.Identifier, pydantic.Field(max_length=64)]


class ForgetRequestIn(base.Input):
    """A demand to forget."""

    model_config = pydantic.ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "digits",
                    "targets": [{"kind": "sample", "ids": ["img_0001", "img_0417"]}],
                    "regulation": "gdpr",
                },
                {
                    "model": "icons",
                    "targets": [
                        {
                            "kind": "concept",
                            "concept": "twemoji",
                            "replacement": "fluent",
                            "prompts": ["a twemoji cat", "twemoji of a red heart"],
                        }
                    ],
                },
            ]
        }
    )

    model: base.Name
    targets: Annotated[tuple[specs.Target, ...], pydantic.Field(min_length=1, max_length=1000)]
    method: dict[str, Any] | None = pydantic.Field(
        default=None,
        description=(
            "fields of the recipe to pin: of UnlearningSpec for classifiers, of GenerationSpec for "
            "generators"
        ),
    )
    subject_request_id: uuid.UUID | None = None
    regulation: Literal["gdpr", "ccpa", "other"] = "gdpr"
    submitted_at: pydantic.AwareDatetime | None = None
    priority: Literal["standard", "expedited"] = "standard"
    attestation: Attestation | None = None
    callback_endpoint: None = pydantic.Field(
        default=None, description="not offered yet: poll the request, or follow its events"
    )
    reason: base.Reason | None = None


class TargetsSummary(base.Output):
    """What became of the samples that a request names; concepts are not counted."""

    matched: int
    already_erased: int
    pending: int
    unknown: int


class Progress(base.Output):
    """Where the job stands; ``fraction`` is of the present stage, in [0, 1]."""

    stage: str
    step: int
    total_steps: int
    fraction: float
    eta_seconds: float | None


class ForgetRequestOut(base.Output):
    """A forget request as it stands."""

    id: uuid.UUID
    status: Status
    stage: Stage
    reason: str | None
    model: str
    received_at: datetime.datetime
    due_at: datetime.datetime
    extended_months: int
    paused_at: datetime.datetime | None
    completed_at: datetime.datetime | None
    expected_completion_at: datetime.datetime | None
    targets_summary: TargetsSummary
    batch_id: uuid.UUID | None
    job_id: uuid.UUID | None
    progress: Progress | None
    result_version: int | None
    waits_for_deployments: list[str] = pydantic.Field(
        description="stage propagating: those that run a version which remembers something of it"
    )
    links: dict[str, str]


class ForgetRequestPage(base.Output):
    """Some requests, by when they came."""

    items: list[ForgetRequestOut]
    next_cursor: str | None


class PreviewOut(base.Output):
    """What a request would do, without doing it."""

    targets_summary: TargetsSummary
    share: float
    needs_approval: bool
    jobs: list[str]
    expected_completion_at: datetime.datetime
    unknown_targets: list[base.ProblemItem]


class JobStepOut(base.Output):
    """A finished stage."""

    name: str
    artifact_digest: str
    run_seconds: float
    created_at: datetime.datetime


class JobOut(base.Output):
    """The work that serves a batch, an audit, an ingestion or a validation."""

    id: uuid.UUID
    kind: str
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    stage: str
    step: int
    total_steps: int
    fraction: float
    eta_seconds: float | None
    attempts: int
    max_attempts: int
    batch_id: uuid.UUID | None
    cancel_requested: bool
    error: dict[str, Any] | None
    created_at: datetime.datetime
    started_at: datetime.datetime | None
    finished_at: datetime.datetime | None
    steps: list[JobStepOut]


class BatchOut(base.Output):
    """Requests that one job serves."""

    id: uuid.UUID
    model: str
    kind: str
    state: Literal[
        "open", "filling", "sealed", "verified", "completed", "blocked", "split", "withdrawn"
    ]
    opened_at: datetime.datetime
    sealed_at: datetime.datetime | None
    requests: int
    samples: int
    concepts: list[str]
    method: dict[str, Any]
    parent_id: uuid.UUID | None
    job_id: uuid.UUID | None
    result_version: int | None


class BatchesOut(base.Output):
    """The batches that a flush sealed."""

    items: list[BatchOut]
