"""What the pipeline needs of a model family. One adapter a family; the pipeline knows only this."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from salun_core import audit, controls, generation_specs, progress, specs
from service import artifacts, errors, plans, storage

SpecT = TypeVar("SpecT", bound=specs.Recipe, contravariant=True)


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


class Prepared(Protocol[SpecT]):
    """A loaded job: the original net and the sets of its plan."""

    def compute_mask(self, spec: SpecT, path: Path, report: progress.Progress) -> None:
        """Write the mask of a recipe."""

    def unlearn(
        self,
        spec: SpecT,
        mask: Path,
        path: Path,
        report: progress.Progress,
        checkpoints: progress.Checkpoints,
    ) -> None:
        """Write the unlearned weights."""

    def verify(
        self, spec: SpecT, mask: Path, unlearned: Path, report: progress.Progress
    ) -> specs.VerificationReport:
        """Measure the unlearned net beside the original.

        Pictures are put into the store; the evidence lists them under ``pictures`` as name, digest
        and size.
        """

    def measure_erased(self, report: progress.Progress) -> specs.VerificationReport:
        """What the loaded net knows of what earlier jobs erased, as far as it can be asked."""


@dataclasses.dataclass(frozen=True)
class Upload:
    """A version that is not validated yet, and what it is for.

    Attributes:
        files: by path.
        dataset: that the model was trained on.
        sampling: how a generator will be sampled from.
        enter: begins a stage of the validation; returns its progress function.
    """

    files: Mapping[str, artifacts.FileRef]
    dataset: str
    sampling: generation_specs.Sampling
    enter: Callable[[str], progress.Progress]


class Family(Protocol[SpecT]):
    """An adapter between the registry's files and ``salun_core``."""

    def validate(self, upload: Upload) -> None:
        """Everything fits; raises :class:`errors.Invalid` with one problem where it does not."""

    def prepare(
        self, plan: plans.Plan, files: Mapping[str, artifacts.FileRef], report: progress.Progress
    ) -> Prepared[SpecT]:
        """Load the original net and the data."""

    def new_files(
        self, base: Sequence[artifacts.FileRef], unlearned: storage.Stored
    ) -> list[artifacts.FileRef]:
        """The files of the new version: the base version's with the weights replaced."""


class Auditable(Protocol):
    """A loaded job whose version can be audited."""

    def audit(
        self, spec: specs.UnlearningSpec, unlearned: Path, training: specs.UnlearningSpec
    ) -> Auditor:
        """Begin an audit of a version; ``training`` is how nets are trained from scratch."""


class AuditedFamily(Protocol):
    """A family whose versions can be audited."""

    def prepare(
        self, plan: plans.Plan, files: Mapping[str, artifacts.FileRef], report: progress.Progress
    ) -> Auditable:
        """Load the original net and the data."""


AnyFamily = Family[Any]


def unfit(path: str, code: str, detail: object) -> errors.Invalid:
    """The refusal of a version for one of its files."""
    problem = errors.Problem(f"/{path}", code, str(detail))
    return errors.Invalid("unsafe-artifact", problem.detail, [problem])


def with_replaced(
    base: Sequence[artifacts.FileRef], path: str, content: storage.Stored
) -> list[artifacts.FileRef]:
    """The same files with other content at one path."""
    replaced = artifacts.FileRef(path, content.digest, content.size)
    return [replaced if file.path == path else file for file in base]
