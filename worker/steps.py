"""Stages that commit an artifact each, and are skipped when an earlier attempt committed it."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from salun_core import progress as core_progress
from salun_core import weights
from service import destruction, jobs, storage
from worker import leases


class Steps:
    """The finished stages of a job, and how to finish another."""

    def __init__(self, lease: leases.Lease, scratch: Path) -> None:
        self._lease = lease
        self._scratch = scratch
        self._done = jobs.steps(lease.claimed.job_id)

    def run(
        self, stage: str, name: str, produce: Callable[[Path, core_progress.Progress], None]
    ) -> Path:
        """The artifact of that name: from the store if it is there whole, else made now.

        ``produce`` writes it to the path that it is given; meanwhile the job shows ``stage``.
        """
        progress = self._lease.enter(stage)
        done = self._done.get(name)
        if done is not None and storage.is_intact(done.artifact_digest):
            return storage.path_of(done.artifact_digest)
        began = time.monotonic()
        path = self._scratch / name.replace("/", "-")
        produce(path, progress)
        stored = storage.put_file(path, destruction.arriving)
        path.unlink()
        run_seconds = time.monotonic() - began
        jobs.commit_step(self._lease.claimed, name, stored.digest, run_seconds)
        self._done = jobs.steps(self._lease.claimed.job_id)
        return storage.path_of(stored.digest)

    def run_seconds(self, name: str) -> float:
        """How long a finished stage took, in the attempt that finished it."""
        return self._done[name].run_seconds

    def total_seconds(self) -> float:
        """How long all finished stages took."""
        return sum(step.run_seconds for step in self._done.values())

    def seconds_by_stage(self) -> dict[str, float]:
        """The same for each stage: the first part of the names."""
        found: dict[str, float] = {}
        for name, step in self._done.items():
            stage = name.split("/")[0]
            found[stage] = found.get(stage, 0.0) + step.run_seconds
        return found

    def checkpoints(self, name: str) -> "StoredCheckpoints":
        """Where a long stage keeps its state between epochs."""
        return StoredCheckpoints(self._lease.claimed, f"{name}/checkpoint", self._scratch)


class StoredCheckpoints:
    """The newest state of a long stage, by digest; a torn one counts as none."""

    def __init__(self, claimed: jobs.Claim, name: str, scratch: Path) -> None:
        self._claimed, self._name, self._scratch = claimed, name, scratch

    def load(self) -> Mapping[str, torch.Tensor] | None:
        """The state that was saved last, or ``None``."""
        step = jobs.steps(self._claimed.job_id).get(self._name)
        if step is None or not storage.is_intact(step.artifact_digest):
            return None
        return weights.read(storage.path_of(step.artifact_digest))

    def save(self, step: int, state: Mapping[str, torch.Tensor]) -> None:
        """Commit a state, then drop the one before it."""
        before = jobs.steps(self._claimed.job_id).get(self._name)
        path = self._scratch / "checkpoint"
        # It names its job: no other has the same digest, so that it can be dropped.
        weights.write(path, state, {"step": str(step), "job": str(self._claimed.job_id)})
        stored = storage.put_file(path, destruction.arriving)
        jobs.commit_step(self._claimed, self._name, stored.digest, 0.0)
        if before is not None and before.artifact_digest != stored.digest:
            storage.remove(before.artifact_digest)

    def drop(self) -> None:
        """The stage is over: its state is not needed any more."""
        step = jobs.steps(self._claimed.job_id).get(self._name)
        if step is not None:
            storage.remove(step.artifact_digest)


def evidence(claimed: jobs.Claim) -> dict[str, Any]:
    """What a report says about the run that made it."""
    return {"job_id": str(claimed.job_id), "attempt": claimed.attempt, "fence": claimed.fence}
