"""The parts of an audit of an image classifier: each loads the nets it needs, and no more."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from salun_core import (
    architectures,
    audit,
    controls,
    modes,
    progress,
    specs,
    verification,
    weights,
)
from salun_core.unlearn import contract, methods

# Proved when the version was made, against its mask; the other nets have none.
_OF_NO_USE = "frozen_weights_unchanged"


@dataclasses.dataclass(frozen=True)
class ClassifierAuditor:
    """A version, the original and the sets of the version's own plan.

    Attributes:
        unlearned: the version's weights.
        subject: the recipe that made them, and what is asked of no net; its mask is not at hand.
        training: how nets are trained from scratch; its seed is the shadow nets'.
    """

    config: specs.ClassifierConfig
    original: torch.nn.Module
    unlearned: Path
    data: contract.UnlearningData
    splits: verification.Splits
    subject: verification.Subject
    training: specs.UnlearningSpec

    def retrain(
        self,
        seed: int,
        owner: str,
        path: Path,
        report: progress.Progress,
        checkpoints: progress.Checkpoints,
    ) -> None:
        """Write a net trained from scratch on the retain set."""
        net = copy.deepcopy(self.original)
        spec = self.training.model_copy(update={"seed": seed})
        methods.unlearn(net, self.config, self.data, None, spec, report, checkpoints)
        metadata = {"owner": owner, "training": spec.model_dump_json()}
        weights.write(path, net.state_dict(), metadata)

    def measure(self, net: Path, report: progress.Progress) -> Mapping[str, specs.Measurement]:
        """Measure a net by itself, as the nets of the controls are."""
        return verification.measure(
            self._load(net), self.original, self.config, self.splits, self.subject, report
        )

    def compare(
        self, retrained: Path, own: Path | None, report: progress.Progress
    ) -> specs.VerificationReport:
        """Measure a net (``None``: the version) beside the original and a retrained one."""
        measured = verification.verify(
            self.original,
            self._load(own or self.unlearned),
            self.config,
            self.splits,
            self.subject,
            report,
            retrained=self._load(retrained),
        )
        metrics = {name: found for name, found in measured.metrics.items() if name != _OF_NO_USE}
        return measured.model_copy(update={"metrics": metrics})

    def control(
        self, seed: int, densities: Sequence[float], report: progress.Progress
    ) -> Sequence[controls.Run]:
        """The version's recipe with a random mask, without one, and at other densities."""
        return controls.run(
            self.original,
            self.config,
            self.splits,
            self.subject.kind,
            self.subject.spec,
            excluded_labels=self.subject.excluded_labels,
            withheld_labels=self.subject.withheld_labels,
            densities=densities,
            seeds=(seed,),
            report=report,
        )

    def attack(
        self, pairs: int, store: audit.Store, report: progress.Progress
    ) -> Mapping[str, specs.Measurement]:
        """U-LiRA by so many pairs of shadow nets."""
        return audit.shadow_audit(
            self._load(self.unlearned),
            self.config,
            self.data,
            self.subject.spec,
            self.training,
            pairs,
            store=store,
            report=report,
        )

    def _load(self, path: Path) -> torch.nn.Module:
        return architectures.load(self.config, path).to(modes.device_of(self.original))
