"""Diffusion models in diffusers' folder layout, class-conditional and text-to-image.

Both are worked on in the same way; they differ in what samples are asked for by: the name of a
class, or a text.
"""

import contextlib
import copy
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch

from salun_core import errors as core_errors
from salun_core import generation_specs, masks, modes, progress, randomness, specs, weights
from salun_core.diffusion import (
    data,
    folders,
    generator,
    membership,
    questions,
    tasks,
    trial,
    verification,
)
from salun_core.diffusion import judge as judges
from salun_core.diffusion.unlearn import contract as unlearn_contract
from salun_core.diffusion.unlearn import methods
from service import artifacts, destruction, families, plans, storage
from worker import captions, devices, judging, places, samples
from worker.families import contract

_DETAIL, _MASK = "detail", "mask"
_SEED = 0  # of what is drawn of an upload, which no recipe says
_MOST_UNSEEN = 2_048
_FEWEST_KEPT = 4_096  # samples that are encoded, if there are so many: masks look at some too


@dataclasses.dataclass(frozen=True)
class PreparedGenerator:
    """The original model, the sets of a plan, and the judge.

    Attributes:
        base_weights: the denoiser's weights as they are served.
        previous: what earlier jobs erased: names of classes, or concepts.
    """

    plan: plans.Plan
    original: generator.Generator
    base_weights: Path
    sets: Mapping[str, data.CaptionedSet]
    judge: judges.Judge
    previous: Sequence[str]

    def compute_mask(
        self, spec: generation_specs.GenerationSpec, path: Path, report: progress.Progress
    ) -> None:
        """Write the bit-packed mask, or an empty file where the recipe uses none."""
        mask = methods.mask_for(self.original, self._data(spec, report), spec, report)
        kind = "none" if mask is None else mask.kind
        weights.write(path, {} if mask is None else mask.to_tensors(), {_MASK: kind})

    def unlearn(
        self,
        spec: generation_specs.GenerationSpec,
        mask: Path,
        path: Path,
        report: progress.Progress,
        checkpoints: progress.Checkpoints,
    ) -> None:
        """Write the unlearned weights; what the method says of itself stands in the metadata."""
        replaces = spec.method == "salun" and spec.targets == "replacement"
        encoded = self._data(spec, report, stand_ins=replaces)
        changed = self.original.with_denoiser(copy.deepcopy(self.original.denoiser))
        with _in_main_memory(self.original.denoiser):
            result = methods.unlearn(changed, encoded, _mask(mask), spec, report, checkpoints)
        detail = {
            "steps": result.steps,
            "losses": [dataclasses.asdict(epoch) for epoch in result.losses],
            **result.detail,
        }
        metadata = {
            **weights.read_metadata(self.base_weights),
            _DETAIL: json.dumps(detail, sort_keys=True),
        }
        tensors = _as_served(weights.read(self.base_weights), changed.denoiser.state_dict())
        weights.write(path, tensors, metadata)

    def verify(
        self,
        spec: generation_specs.GenerationSpec,
        mask: Path,
        unlearned: Path,
        report: progress.Progress,
    ) -> specs.VerificationReport:
        """Measure the unlearned model, read back from what will be served."""
        denoiser = copy.deepcopy(self.original.denoiser)
        denoiser.load_state_dict(
            {name: tensor.float() for name, tensor in weights.read(unlearned).items()}
        )
        asked = self._questions()
        verified = verification.verify(
            self.original,
            self.original.with_denoiser(denoiser),
            self.judge,
            asked,
            self._subject(spec, mask),
            self.plan.sampled,
            report,
        )
        measured = verified.report
        evidence = {
            **measured.evidence,
            "method": json.loads(weights.read_metadata(unlearned)[_DETAIL]),
            "concepts": self._concepts(measured.evidence["concepts"]),
            "not_measured": _not_measured(asked, measured),
            "pools": {name: len(found) for name, found in self.sets.items()}
            | {"previous": len(self.previous)},
            "pictures": [_kept(name, content) for name, content in verified.pictures.items()],
        }
        return measured.model_copy(update={"evidence": evidence})

    def measure_erased(self, report: progress.Progress) -> specs.VerificationReport:
        """What the loaded model draws of what was erased before."""
        asked = questions.of_erased(self.previous, self.plan.sampled.images)
        metrics = {}
        if asked.previous:  # of single samples there is nothing to ask
            metrics = verification.measure_erased(
                self.original, self.judge, asked, self.plan.sampled, _SEED, report
            )
        return specs.VerificationReport(
            kind=self.plan.kind,
            family=cast("generation_specs.GenerativeFamily", self.plan.family),
            metrics=metrics,
            evidence={"pools": {"previous": len(self.previous)}},
            seconds={},
        )

    def _questions(self) -> questions.Questions:
        forget, retain = (self.sets[name].texts for name in ("forget", "retain"))
        images, seed = self.plan.sampled.images, self.plan.ladder[0].seed
        if self.plan.kind == "samples":
            return questions.of_samples(self.judge, retain, images, seed, self.previous)
        if self.plan.kind == "class":
            kept = sorted(set(retain) - {*forget, *self.previous})
            return questions.of_class(sorted(set(forget)), kept, images, self.previous)
        return questions.of_concepts(
            self.judge,
            forget,
            retain,
            self.plan.concept_targets,
            images,
            seed,
            self.previous,
        )

    def _subject(self, spec: generation_specs.GenerationSpec, mask: Path) -> verification.Subject:
        compared = None
        if self.plan.kind == "samples":
            forget, unseen = (
                data.encode(self.original, self.sets[name])
                for name in ("forget", self._unseen_in(("test", "holdout")))
            )
            compared = membership.SampleSets(forget, unseen)
        family = cast("generation_specs.GenerativeFamily", self.plan.family)
        return verification.Subject(self.plan.kind, family, _mask(mask), spec, compared)

    def _unseen_in(self, splits: tuple[str, str]) -> str:
        """The first of the two splits that has samples: where both have, one sets the aim, the
        other judges.
        """
        return splits[0] if len(self.sets[splits[0]]) else splits[1]

    def _concepts(self, terms: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
        """What is forgotten, what is drawn instead, and what the judge knows it by."""
        instead = {one.concept: one.replacement for one in self.plan.concept_targets}
        return [
            {"concept": name, "replacement": instead.get(name), "terms": list(known)}
            for name, known in terms.items()
        ]

    def _data(
        self,
        spec: generation_specs.GenerationSpec,
        report: progress.Progress,
        *,
        stand_ins: bool = False,
    ) -> unlearn_contract.GenerationData:
        """The sets as the model sees them; of what is kept not much more than the steps look at.

        UCE takes no steps, it looks at every kept text.
        """
        seen = spec.steps * (spec.retain_batch_size + spec.forget_batch_size)
        forget, kept = self.sets["forget"], self.sets["retain"]
        most = len(kept) if spec.method == "uce" else max(seen, _FEWEST_KEPT)
        retain = kept.some(most, randomness.generator(spec.seed, "kept"))
        if self.plan.kind == "samples":
            unseen = self.sets[self._unseen_in(("holdout", "test"))]
            return tasks.of_samples(self.original, forget, retain, unseen, report=report)
        if self.plan.kind == "class":
            return tasks.of_class(self.original, forget, retain, report=report)
        return tasks.of_concepts(
            self.original,
            forget,
            retain,
            self.plan.concept_targets,
            self.plan.sampled,
            seed=spec.seed,
            stand_ins=kept if stand_ins else None,
            report=report,
        )


class Generation:
    """The adapter of one of the two families."""

    def __init__(self, family: generation_specs.GenerativeFamily) -> None:
        self._family = family

    @property
    def _by(self) -> Literal["label", "text"]:
        return families.FAMILIES[self._family].needs

    def validate(self, upload: contract.Upload) -> None:
        """The parts fit each other and the data, and there is a judge of what the model draws.

        Raises :class:`errors.Invalid`.
        """
        report = upload.enter("validating")
        listed = samples.listing(upload.dataset, self._by)
        try:
            opened = self._open(upload.files, listed.label_names)
            self._check_conditions(opened, listed, upload.sampling)
            trial.check_sampling(opened, upload.sampling)
            whole = captions.whole(listed, self._by, opened.image_size, report)
            self._judge(
                upload.files, upload.dataset, listed, whole, lambda: upload.enter("training_judge")
            )
        except core_errors.InvalidInputError as error:
            path = str(error).split(":", 1)[0]
            raise contract.unfit(
                path if path in upload.files else "", _code(error), error
            ) from error

    def prepare(
        self,
        plan: plans.Plan,
        files: Mapping[str, artifacts.FileRef],
        report: progress.Progress,
    ) -> PreparedGenerator:
        """Open the model that is served and map the decoded data."""
        listed = samples.listing(plan.dataset, self._by)
        original = self._open(files, listed.label_names)
        trial.check_steps(original.scheduler_config, plan.sampled.steps)
        whole = captions.whole(listed, self._by, original.image_size, report)
        sets = {name: whole.subset(rows) for name, rows in places.of_plan(plan, listed).items()}
        sets |= {name: _like(sets[name], sets["forget"]) for name in ("holdout", "test")}
        base_weights = storage.path_of(files[original.weights_file].digest)
        previous = [
            *(listed.label_names[label] for label in plan.excluded_labels),
            *(one.concept for one in plan.previous_targets),
        ]
        forgotten = {
            "samples": (),
            "class": sorted(set(sets["forget"].texts)),
            "concept": [one.concept for one in plan.concept_targets],
        }[plan.kind]
        judge = self._judge(
            files, plan.dataset, listed, whole, lambda: report, [*forgotten, *previous]
        )
        return PreparedGenerator(plan, original, base_weights, sets, judge, previous)

    def new_files(
        self, base: Sequence[artifacts.FileRef], unlearned: storage.Stored
    ) -> list[artifacts.FileRef]:
        """The base version's files with the denoiser's weights replaced."""
        path = artifacts.layout_of(self._family, base).weights_file
        return contract.with_replaced(base, path, unlearned)

    def _open(
        self, files: Mapping[str, artifacts.FileRef], label_names: Sequence[str]
    ) -> generator.Generator:
        with storage.linked({path: file.digest for path, file in files.items()}) as folder:
            return folders.open_generator(folder, self._family, label_names, devices.chosen())

    def _judge(
        self,
        files: Mapping[str, artifacts.FileRef],
        dataset: str,
        listed: samples.Listing,
        whole: data.CaptionedSet,
        begin: Callable[[], progress.Progress],
        needed: Sequence[str] = (),
    ) -> judges.Judge:
        return judging.choose(
            files, dataset, listed, whole, exclusive=self._by == "label", begin=begin, needed=needed
        )

    def _check_conditions(
        self,
        opened: generator.Generator,
        listed: samples.Listing,
        sampling: generation_specs.Sampling,
    ) -> None:
        """The model can be asked for what the samples are called, in the way it is served."""
        if self._by == "label":
            opened.conditions(listed.label_names)
        if sampling.guidance_scale != 1.0:
            try:
                opened.null_condition()
            except core_errors.InvalidDataError as error:
                raise core_errors.InvalidDataError(
                    f"{error}; or sampling.guidance_scale 1 in the model's policy (it is "
                    f"{sampling.guidance_scale})"
                ) from error


def _like(unseen: data.CaptionedSet, forget: data.CaptionedSet) -> data.CaptionedSet:
    """No more unseen samples than are looked at; those with the texts of forgotten ones first."""
    asked = set(forget.texts)
    order = sorted(range(len(unseen)), key=lambda row: (unseen.texts[row] not in asked, row))
    return unseen.subset(sorted(order[:_MOST_UNSEEN]))


def _mask(path: Path) -> masks.SaliencyMask | None:
    """A file without tensors says that every weight may change."""
    tensors = weights.read(path)
    return masks.SaliencyMask.from_tensors(tensors) if tensors else None


@contextlib.contextmanager
def _in_main_memory(net: torch.nn.Module) -> Iterator[None]:
    """A net makes room on its device until the block ends."""
    device = modes.device_of(net)
    net.cpu()
    try:
        yield
    finally:
        net.to(device)


def _as_served(
    base: Mapping[str, torch.Tensor], changed: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Float32 weights in the types of the base file; a weight that is equal stays bit-identical."""
    served = {}
    for name, tensor in base.items():
        new = changed[name].cpu()
        served[name] = torch.where(new == tensor.float(), tensor, new.to(tensor.dtype))
    return served


def _not_measured(asked: questions.Questions, measured: specs.VerificationReport) -> dict[str, str]:
    """Metrics that there can be no figure of, and why."""
    found = {}
    if not asked.paraphrases:
        found["paraphrase_recall"] = "the model is not asked for what is forgotten in words"
    if not asked.compositions:
        found["composition_shift"] = "nothing that is kept shares a word with what is forgotten"
    if "adversarial_recall" not in measured.metrics:
        found["adversarial_recall"] = (
            "words are searched for with the original's pictures of what is forgotten; there are "
            "none, or the model is not asked in words"
        )
    return found


def _kept(name: str, content: bytes) -> dict[str, Any]:
    stored = storage.put([content], destruction.arriving)
    return {"name": name, "digest": stored.digest, "size": stored.size}


def _code(error: core_errors.InvalidInputError) -> str:
    if isinstance(error, core_errors.ArchitectureMismatchError):
        return "architecture-mismatch"
    if isinstance(error, core_errors.InvalidDataError):
        return "data-mismatch"
    return "invalid-artifact"
