"""Image classifiers in timm's hub layout: ``config.json`` and ``model.safetensors``."""

import copy
import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from salun_core import (
    architectures,
    images,
    masks,
    preprocessing,
    progress,
    specs,
    trials,
    unseen,
    verification,
    weights,
)
from salun_core import errors as core_errors
from salun_core.unlearn import contract as unlearn_contract
from salun_core.unlearn import methods
from service import artifacts, plans, storage
from worker import devices, pictures, places, samples
from worker.families import classifier_audit, contract

_BUFFERS, _DETAIL = "changed_buffers", "detail"


@dataclasses.dataclass(frozen=True)
class PreparedClassifier:
    """The original net and the sets of a plan."""

    plan: plans.Plan
    config: specs.ClassifierConfig
    original: torch.nn.Module
    sets: Mapping[str, images.ImageSet]

    def compute_mask(
        self, spec: specs.UnlearningSpec, path: Path, report: progress.Progress
    ) -> None:
        """Write the bit-packed mask, or an empty file where the recipe uses none."""
        known = unlearn_contract.known_set(self._data())
        mask = trials.mask_for(self.original, self.config, known, spec, report)
        weights.write(path, {} if mask is None else mask.to_tensors(), {"mask": spec.mask})

    def unlearn(
        self,
        spec: specs.UnlearningSpec,
        mask: Path,
        path: Path,
        report: progress.Progress,
        checkpoints: progress.Checkpoints,
    ) -> None:
        """Write the unlearned weights; what the method says of itself stands in the metadata."""
        net = copy.deepcopy(self.original)
        result = methods.unlearn(
            net, self.config, self._data(), _mask(mask), spec, report, checkpoints
        )
        detail = {
            "steps": result.steps,
            "losses": [dataclasses.asdict(epoch) for epoch in result.losses],
            **result.detail,
        }
        metadata = {
            _BUFFERS: json.dumps(result.changed_buffers),
            _DETAIL: json.dumps(detail, sort_keys=True),
        }
        weights.write(path, net.cpu().state_dict(), metadata)

    def verify(
        self, spec: specs.UnlearningSpec, mask: Path, unlearned: Path, report: progress.Progress
    ) -> specs.VerificationReport:
        """Measure the unlearned net, read back from what will be served."""
        metadata = weights.read_metadata(unlearned)
        subject = verification.Subject(
            kind=self.plan.kind,
            mask=_mask(mask),
            changed_buffers=tuple(json.loads(metadata[_BUFFERS])),
            spec=spec,
            excluded_labels=tuple(self.plan.excluded_labels),
            withheld_labels=tuple(self.plan.withheld_labels),
        )
        net = _load(self.config, unlearned)
        measured = verification.verify(
            self.original, net, self.config, self._splits(), subject, report
        )
        evidence = {
            **measured.evidence,
            "method": json.loads(metadata[_DETAIL]),
            "unseen": self.pool.evidence(),
        }
        return measured.model_copy(update={"evidence": evidence})

    def measure_erased(self, report: progress.Progress) -> specs.VerificationReport:
        """How the loaded net answers on what was erased before, beside unseen samples."""
        erased, gone = self.sets["previous"], tuple(self.plan.excluded_labels)
        pools = {"previous": len(erased), "previous_samples": len(erased.without_labels(gone))}
        metrics = {}
        if len(erased):
            splits = self._splits()
            metrics = verification.measure_erased(self.original, self.config, splits, gone, report)
        return specs.VerificationReport(
            kind=self.plan.kind, metrics=metrics, evidence={"pools": pools}, seconds={}
        )

    @functools.cached_property
    def pool(self) -> unseen.Unseen:
        """What was never trained on, for targets and for judging."""
        samples_of = [self.sets["previous"].without_labels(self.plan.excluded_labels)]
        if self.plan.kind == "samples":
            samples_of.append(self.sets["forget"])
        labels = torch.cat([image_set.labels for image_set in samples_of])
        return unseen.choose(self.sets["holdout"], self.sets["test"], labels)

    def audit(
        self, spec: specs.UnlearningSpec, unlearned: Path, training: specs.UnlearningSpec
    ) -> classifier_audit.ClassifierAuditor:
        """Begin an audit on the sets that the version was made and measured on."""
        return classifier_audit.ClassifierAuditor(
            config=self.config,
            original=self.original,
            unlearned=unlearned,
            data=self._data(),
            splits=self._splits(),
            subject=verification.Subject(
                kind=self.plan.kind,
                mask=None,
                changed_buffers=(),
                spec=spec,
                excluded_labels=tuple(self.plan.excluded_labels),
                withheld_labels=tuple(self.plan.withheld_labels),
            ),
            training=training,
        )

    def _data(self) -> unlearn_contract.UnlearningData:
        return unlearn_contract.UnlearningData(
            forget_set=self.sets["forget"],
            retain_set=self.sets["retain"],
            holdout_set=self.pool.image_set,
            previous_set=self.sets["previous"],
            excluded_labels=self.plan.absent_labels,
            cross_fitted=self.pool.cross_fitted,
            base_knows_previous=self.plan.forgets_anew,
        )

    def _splits(self) -> verification.Splits:
        return verification.Splits(
            forget_set=self.sets["forget"],
            retain_set=self.sets["retain"],
            holdout_set=self.pool.image_set,
            test_set=self.sets["test"],
            previous_set=self.sets["previous"],
            previous_groups=self._erased_by(),
            cross_fitted=self.pool.cross_fitted,
            base_knows_previous=self.plan.forgets_anew,
        )

    def _erased_by(self) -> torch.Tensor | None:
        """The version that forgot each earlier sample; ``None`` of a plan that does not tell."""
        if not self.plan.previous_by:
            return None
        known = dict(zip(self.plan.previous_ids, self.plan.previous_by, strict=True))
        return torch.tensor([known[one] for one in self.sets["previous"].ids], dtype=torch.int64)


class Classifier:
    """The adapter."""

    def validate(self, upload: contract.Upload) -> None:
        """The tensors fit the architecture; raises :class:`errors.Invalid`."""
        upload.enter("validating")
        try:
            config = artifacts.read_config(upload.files[artifacts.CONFIG].digest)
            weights_path = storage.path_of(upload.files[artifacts.WEIGHTS].digest)
            net = architectures.load(config, weights_path)
        except core_errors.UnknownArchitectureError as error:
            raise contract.unfit(artifacts.CONFIG, "unknown-architecture", error) from error
        except core_errors.ArchitectureMismatchError as error:
            raise contract.unfit(artifacts.WEIGHTS, "architecture-mismatch", error) from error
        except core_errors.InvalidInputError as error:
            raise contract.unfit(artifacts.WEIGHTS, "invalid-artifact", error) from error
        for name, tensor in net.state_dict().items():
            if not bool(torch.isfinite(tensor).all()):
                detail = f"{name} holds NaN or infinity, expected finite weights"
                raise contract.unfit(artifacts.WEIGHTS, "not-finite", detail)

    def prepare(
        self,
        plan: plans.Plan,
        files: Mapping[str, artifacts.FileRef],
        report: progress.Progress,
    ) -> PreparedClassifier:
        """Load the net that is served and map the decoded data."""
        config = artifacts.read_config(files[artifacts.CONFIG].digest)
        original = _load(config, storage.path_of(files[artifacts.WEIGHTS].digest))
        return PreparedClassifier(plan, config, original, _sets(plan, config, report))

    def new_files(
        self, base: Sequence[artifacts.FileRef], unlearned: storage.Stored
    ) -> list[artifacts.FileRef]:
        """The base version's files with the weights replaced."""
        return contract.with_replaced(base, artifacts.WEIGHTS, unlearned)


def _load(config: specs.ClassifierConfig, path: Path) -> torch.nn.Module:
    """The net where this worker computes."""
    return architectures.load(config, path).to(devices.chosen())


def _mask(path: Path) -> masks.SaliencyMask | None:
    if weights.read_metadata(path)["mask"] == "none":
        return None
    return masks.SaliencyMask.from_tensors(weights.read(path))


def _sets(
    plan: plans.Plan, config: specs.ClassifierConfig, report: progress.Progress
) -> dict[str, images.ImageSet]:
    """Every set of the plan, sorted by sample id, over one array of mapped pictures."""
    listed = samples.listing(plan.dataset, "label")
    places_of = places.of_plan(plan, listed)
    decode = preprocessing.Preprocessing(config.pretrained_cfg)
    shared = pictures.mapped(listed, decode, report)
    found = {}
    for name, rows in places_of.items():
        chosen = [listed.samples[row] for row in rows]
        found[name] = images.ImageSet(
            images.Pictures(shared, torch.tensor(rows, dtype=torch.int64)),
            torch.tensor([one.label for one in chosen], dtype=torch.int64),
            tuple(one.sample_id for one in chosen),
        )
    return found
