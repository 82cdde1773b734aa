"""Every refusal that a use case can answer with; HTTP statuses are given in ``api.errors``.

Refusal
├── NotFound            nothing of that name that the caller may see
├── Conflict            the state does not allow it (``code`` says which rule)
│   └── Outdated        what it was made from is not the newest any more: make it again
├── Invalid             what was given cannot be used (``code``, and ``problems`` with pointers)
├── Gone                it was there and has been revoked
├── PreconditionFailed  If-Match names an older state
└── Forbidden           the key lacks the scope
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a body: where (RFC 6901 pointer), a stable code, and a sentence."""

    pointer: str
    code: str
    detail: str


class Refusal(Exception):
    """Base: ``code`` is the last part of the problem type, ``detail`` a sentence for people."""

    def __init__(self, code: str, detail: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.problems = tuple(problems)


class NotFound(Refusal):
    """Nothing of that name that the caller may see."""


class Conflict(Refusal):
    """The present state does not allow it."""


class Outdated(Conflict):
    """What it was made from is not the newest any more: make it again."""


class Invalid(Refusal):
    """What was given cannot be used."""


class Gone(Refusal):
    """It was there and has been revoked."""


class PreconditionFailed(Refusal):
    """``If-Match`` names an older state."""


class Forbidden(Refusal):
    """The key lacks the scope."""


class LeaseLost(Exception):
    """Another worker may own the job now: stop and write nothing."""
