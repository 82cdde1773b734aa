"""Which faults strike when: a plan that a seed decides, so that it can be had again."""

import dataclasses
import random
from collections.abc import Mapping, Sequence

# How many of a hundred. A worker takes seconds of a core to start again: if most faults ended one,
# the rest would find nobody at work.
SHARES: Mapping[str, int] = {
    "worker SIGKILL": 6,
    "worker's child SIGKILL": 6,
    "worker SIGSTOP, then SIGCONT": 18,
    "worker SIGTERM": 4,
    "broker FLUSHALL": 16,
    "broker SIGKILL": 4,
    "broker SIGSTOP, then SIGCONT": 6,
    "API SIGKILL": 4,
    "housekeeping SIGKILL": 2,
    "database: random connections terminated": 20,
    "database SIGINT": 2,
    "database SIGKILL": 2,
    "hint repeated twenty times": 10,
}


@dataclasses.dataclass(frozen=True)
class Injection:
    """One fault.

    Attributes:
        kind: a key of ``SHARES``.
        wait_seconds: after the fault before it.
        pause_seconds: how long something stays stopped, where the fault is that.
        choice: in [0, 1), picks whom it meets.
    """

    kind: str
    wait_seconds: float
    pause_seconds: float
    choice: float


def plan(
    seed: int, injections: int, *, longest_wait: float, longest_pause: float
) -> list[Injection]:
    """So many faults. The first of each kind come early, so that a short plan has many kinds."""
    chance = random.Random(seed)  # noqa: S311 - a plan, no secret
    kinds = list(SHARES)
    chance.shuffle(kinds)
    kinds += chance.choices(list(SHARES), list(SHARES.values()), k=max(0, injections - len(kinds)))
    return [
        Injection(
            kind=kind,
            wait_seconds=chance.uniform(0.1, longest_wait),
            pause_seconds=chance.uniform(0.2, longest_pause),
            choice=chance.random(),
        )
        for kind in kinds[:injections]
    ]


def counted(injections: Sequence[Injection]) -> dict[str, int]:
    """How many of each kind."""
    kinds = [injection.kind for injection in injections]
    return {kind: kinds.count(kind) for kind in SHARES}
