"""Every error that the client side raises on purpose.

ClientError                       one line for the user: what was got, what was expected, what to do
├── ApiError                      the service answered with an error (RFC 9457 problem)
├── UnreachableError              nothing answered at the address
├── IntegrityError                bytes do not have the digest that was promised
├── RollbackError                 a version older than what must no longer be served was offered
└── LocalServerError              a process on this machine could not be started or stopped
    └── DataDirInUseError         another launcher works on the same data folder
"""

from collections.abc import Mapping
from typing import Any


class ClientError(Exception):
    """Base of all errors of the client; ``str(error)`` is one line for a human."""


class ApiError(ClientError):
    """The service refused: ``status`` is the HTTP status, ``problem`` the parsed problem+json."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem = dict(problem)
        super().__init__(_one_line(status, problem))

    @property
    def kind(self) -> str:
        """The last part of the problem's ``type``, for example ``erasure-regression``."""
        return str(self.problem.get("type", "about:blank")).rsplit("/", 1)[-1]


class UnreachableError(ClientError):
    """Nothing answered at the address."""


class IntegrityError(ClientError):
    """Bytes do not have the digest that was promised."""


class RollbackError(ClientError):
    """A version older than what must no longer be served was offered."""


class LocalServerError(ClientError):
    """A server or process on this machine could not be started or stopped."""


class DataDirInUseError(LocalServerError):
    """Another launcher works on the same data folder."""


def _one_line(status: int, problem: Mapping[str, Any]) -> str:
    title = str(problem.get("title") or "refused")
    detail = str(problem.get("detail") or "")
    text = f"{status} {title}"
    return f"{text}: {detail}" if detail and detail != title else text
