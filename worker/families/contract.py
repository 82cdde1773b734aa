"""What the pipeline needs of a model family. One adapter a family; the pipeline knows only this."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from salun_core import progress, specs
from service import artifacts, planning


class Prepared(Protocol):
    """A loaded job: the original net and the sets of its plan."""

    def compute_mask(
        self, spec: specs.UnlearningSpec, path: Path, report: progress.Progress
    ) -> None:
        """Write the mask of a recipe."""

    def unlearn(
        self,
        spec: specs.UnlearningSpec,
        mask: Path,
        path: Path,
        report: progress.Progress,
        checkpoints: progress.Checkpoints,
    ) -> None:
        """Write the unlearned weights."""

    def verify(
        self, spec: specs.UnlearningSpec, mask: Path, unlearned: Path, report: progress.Progress
    ) -> specs.VerificationReport:
        """Measure the unlearned net beside the original."""


class Family(Protocol):
    """An adapter between the registry's files and ``salun_core``."""

    def prepare(
        self, plan: planning.Plan, files: Mapping[str, artifacts.FileRef], report: progress.Progress
    ) -> Prepared:
        """Load the original net and the data."""

    def new_files(
        self, base: Sequence[artifacts.FileRef], unlearned: artifacts.FileRef
    ) -> list[artifacts.FileRef]:
        """The files of the new version: the base version's with the weights replaced."""
