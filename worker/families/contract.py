"""What the pipeline needs of a model family. One adapter a family; the pipeline knows only this."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from salun_core import audit, controls, progress, specs
from service import artifacts, planning


class Auditor(Protocol):
    """An unlearned version among the nets that say how good it is, part by part."""

    def retrain(
        self,
        seed: int,
        owner: str,
        path: Path,
        report: progress.Progress,
        checkpoints: progress.Checkpoints,
    ) -> None:
        """Write a net trained from scratch on the retain set.

        The file names its owner: nobody else's has the same digest, so that it can be dropped.
        """

    def measure(self, net: Path, report: progress.Progress) -> Mapping[str, specs.Measurement]:
        """Measure a net by itself, as the nets of the controls are."""

    def compare(
        self, retrained: Path, own: Path | None, report: progress.Progress
    ) -> specs.VerificationReport:
        """Measure a net (``None``: the version) beside the original and a retrained one."""

    def control(
        self, seed: int, densities: Sequence[float], report: progress.Progress
    ) -> Sequence[controls.Run]:
        """The version's recipe with a random mask, without one, and at other densities."""

    def attack(
        self, pairs: int, store: audit.Store, report: progress.Progress
    ) -> Mapping[str, specs.Measurement]:
        """U-LiRA by so many pairs of shadow nets."""


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

    def audit(
        self, spec: specs.UnlearningSpec, unlearned: Path, training: specs.UnlearningSpec
    ) -> Auditor:
        """Begin an audit of a version; ``training`` is how nets are trained from scratch."""


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
