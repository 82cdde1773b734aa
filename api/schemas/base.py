"""What all bodies share: snake_case JSON, RFC 3339 times, unknown keys refused on input."""

import datetime
from typing import Annotated, Any

import pydantic

from service import deadlines

NO_NUL = r"^[^\x00]+$"  # the database cannot hold it
Name = Annotated[
    str,
    pydantic.Field(
        min_length=1,
        max_length=96,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*$",
        description="letters, digits, '-', '_' and single '.', starting with a letter or digit",
    ),
]
Digest = Annotated[
    str,
    pydantic.Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256, 64 lower-case hex digits"),
]
Reason = Annotated[
    str,
    pydantic.Field(
        min_length=1,
        max_length=2000,
        pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]+$",
        description="text without control characters but tabs and line ends",
    ),
]


def _in_utc(moment: datetime.datetime) -> datetime.datetime:
    try:
        return moment.astimezone(datetime.UTC)
    except OverflowError as error:
        msg = "expected a time between the years 1 and 9999 in UTC"
        raise ValueError(msg) from error


Moment = Annotated[pydantic.AwareDatetime, pydantic.AfterValidator(_in_utc)]


class Input(pydantic.BaseModel):
    """A body that a client sends."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Output(pydantic.BaseModel):
    """A body that we send."""

    model_config = pydantic.ConfigDict(frozen=True)


class ReasonIn(Input):
    """Why a person decides so."""

    reason: Reason


class ApprovalIn(ReasonIn):
    """Why a person decides to go on, and by which recipe."""

    method: dict[str, Any] | None = pydantic.Field(
        default=None,
        description=(
            "fields of the recipe to pin in the place of those that failed, for all requests of "
            "the batch; {} for the service's own choice; without it the same is tried again"
        ),
    )


class ExtensionIn(ReasonIn):
    """How much longer a request may take, and why."""

    months: Annotated[int, pydantic.Field(ge=1, le=deadlines.MOST_MONTHS)] = deadlines.MOST_MONTHS


class ProblemItem(Output):
    """One thing wrong with a body."""

    pointer: str
    code: str
    detail: str


class Problem(Output):
    """RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[ProblemItem, ...] = ()
