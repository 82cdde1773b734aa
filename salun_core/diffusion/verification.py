"""Measure an unlearned generator and keep the evidence: what it draws, told by a judge.

Nothing is decided here. Every net draws every list of questions once, from the same noise.
"""

import dataclasses
import platform
import time
from collections.abc import Mapping
from typing import Any, TypeGuard

import diffusers
import numpy as np
import torch

from salun_core import change_records, generation_specs, masked_step, masks, progress, specs
from salun_core.diffusion import answers, attack, figures, grids, membership, text_to_image
from salun_core.diffusion import generator as generators
from salun_core.diffusion import judge as judges
from salun_core.diffusion import questions as asking

_CLAIMS: Mapping[specs.ForgetKind, str] = {
    "samples": (
        "Measured: whether the forgotten pictures can be told from unseen ones by their denoising "
        "loss. Not measured: whether near-copies of them can still be drawn; no prompt was asked "
        "for them."
    ),
    "class": (
        "Measured: what is drawn for the class by its name and without being asked for anything, "
        "with the noise and judge named here. Not measured: other noise, which may bring back more."
    ),
    "concept": (
        "Measured: what is drawn for the concept, with the prompts, noise and judge named here. "
        "Not measured: other prompts, which may bring back more."
    ),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """What was done to the model, as far as verification must know.

    Attributes:
        kind: ``samples``, ``class`` or ``concept``.
        family: of the model.
        mask: weights that were allowed to change; ``None`` for all.
        spec: the recipe.
        samples: forgotten samples and unseen ones to compare, where single samples were erased.
    """

    kind: specs.ForgetKind
    family: generation_specs.GenerativeFamily
    mask: masks.SaliencyMask | None
    spec: generation_specs.GenerationSpec
    samples: membership.SampleSets | None = None


@dataclasses.dataclass(frozen=True)
class Verified:
    """A report and what a person looks at.

    Attributes:
        report: the numbers.
        pictures: PNG files by name: grids of the same noise before and after.
    """

    report: specs.VerificationReport
    pictures: Mapping[str, bytes]


@dataclasses.dataclass(frozen=True, eq=False)
class _Read:
    """What one model gave."""

    drawn: Mapping[str, answers.Answer]
    losses: tuple[torch.Tensor, torch.Tensor] | None


def verify(
    original: generators.Generator,
    unlearned: generators.Generator,
    judge: judges.Judge,
    questions: asking.Questions,
    subject: Subject,
    sampling: generation_specs.Sampling,
    report: progress.Progress = progress.silent,
    retrained: generators.Generator | None = None,
) -> Verified:
    """Draw from the unlearned model, and from the original beside it.

    Args:
        original: before; around another denoiser than ``unlearned``.
        unlearned: after.
        judge: says what pictures show.
        questions: what the models are asked.
        subject: what was done.
        sampling: steps, guidance, and pictures of each prompt that an attack finds.
        report: called after every step of sampling, search and loss.
        retrained: a model that never saw what was erased, where there is one: measured too.

    Returns:
        Metrics as the design's table names them. ``evidence`` has the same of the original and of
        the retrained model, a claim that says what was measured and what was not, where pictures
        for what is forgotten go to, groups before and after, the judge and what it is not to be
        relied on for, sampling, mask record and versions.

    Raises:
        InvalidDataError: a prompt is no condition of the model, the judge knows no word of a
            question, or the nets have other tensors.
        CancelledError: from ``report``.
    """
    started = time.perf_counter()
    models = [original, unlearned, *([] if retrained is None else [retrained])]
    total = _count_steps(models, questions, subject, sampling)
    reader = _Reader(judge, questions, subject, sampling, progress.Ticker(report, total))
    before, after = reader.read(original), reader.read(unlearned)
    state = masked_step.copy_state(original.denoiser)
    metrics = {
        "frozen_weights_unchanged": change_records.frozen_weights_unchanged(
            state, unlearned.denoiser, subject.mask
        ),
        **reader.measured(after, before),
        **reader.attacked(unlearned, after, before),
    }
    evidence = {
        **_evidence(judge, questions, subject, sampling),
        "weights_changed": change_records.changed_share(state, unlearned.denoiser),
        "original": _values(reader.measured(before, before)),
        **reader.moved(after, before),
    }
    if retrained is not None:
        evidence["retrained"] = _values(reader.measured(reader.read(retrained), before))
    drawn = {"before": before.drawn, "after": after.drawn}
    made = specs.VerificationReport(
        kind=subject.kind,
        family=subject.family,
        metrics=metrics,
        evidence=evidence,
        seconds={"verify": time.perf_counter() - started},
    )
    return Verified(made, _pictures(drawn, questions, subject.spec.seed))


def measure_erased(
    generator: generators.Generator,
    judge: judges.Judge,
    questions: asking.Questions,
    sampling: generation_specs.Sampling,
    seed: int,
    report: progress.Progress = progress.silent,
) -> dict[str, specs.Measurement]:
    """What a model that nothing was done to draws of what was erased before it came.

    Args:
        generator: the model.
        judge: says what pictures show.
        questions: of :func:`questions.of_erased`; there is one.
        sampling: steps and guidance.
        seed: of the noise.
        report: called after every step of sampling.

    Raises:
        InvalidDataError: a prompt is no condition of the model, or the judge knows no word of one.
        CancelledError: from ``report``.
    """
    ticker = progress.Ticker(report, answers.count_steps(generator, questions, sampling))
    drawn = answers.ask(generator, judge, questions, sampling, seed, ticker)["previous"]
    hits = answers.recognised(judge, drawn, questions.previous)
    return {"previous_erasures": figures.gone(hits, questions.previous)}


class _Reader:
    """Asks one model after the other the same."""

    def __init__(
        self,
        judge: judges.Judge,
        questions: asking.Questions,
        subject: Subject,
        sampling: generation_specs.Sampling,
        ticker: progress.Ticker,
    ) -> None:
        self._judge, self._questions, self._subject = judge, questions, subject
        self._sampling, self._ticker = sampling, ticker
        self._seed = subject.spec.seed

    def read(self, generator: generators.Generator) -> _Read:
        drawn = answers.ask(
            generator, self._judge, self._questions, self._sampling, self._seed, self._ticker
        )
        sets = self._subject.samples
        if sets is None:
            return _Read(drawn, None)
        forget, holdout = (
            membership.losses(generator, one, self._seed, self._ticker)
            for one in (sets.forget, sets.holdout)
        )
        return _Read(drawn, (forget, holdout))

    def measured(self, own: _Read, original: _Read) -> dict[str, specs.Measurement]:
        found = figures.all_measurements(own.drawn, original.drawn, self._judge, self._questions)
        if self._subject.samples is not None and own.losses is not None:
            found["forget_holdout_auc"] = membership.forget_holdout_auc(
                self._subject.samples,
                *own.losses,
                never_saw=self._subject.spec.method == "retrain",
            )
        return found

    def attacked(
        self, generator: generators.Generator, own: _Read, original: _Read
    ) -> dict[str, specs.Measurement]:
        """The attack, on models that are told texts."""
        if not (_takes_texts(generator) and self._questions.forgotten):
            return {}
        found = attack.adversarial_recall(
            generator,
            self._judge,
            self._questions,
            own.drawn["forgotten"],
            original.drawn["forgotten"],
            self._sampling,
            self._seed,
            self._ticker,
        )
        return {} if found is None else {"adversarial_recall": found}

    def moved(self, own: _Read, original: _Read) -> dict[str, Any]:
        """Where what was forgotten goes to, and what every kept group lost."""
        kept = {"before": original.drawn["kept"], "after": own.drawn["kept"]}
        groups: dict[str, dict[str, float]] = {}
        for when, answer in kept.items():
            right = figures.group_accuracies(answer, self._judge, self._questions.kept)
            for term, hits in right.items():
                groups.setdefault(term, {})[when] = hits.double().mean().item()
        found: dict[str, Any] = {"groups": groups}
        if "forgotten" in own.drawn:
            found["forget_goes_to"] = figures.goes_to(
                own.drawn["forgotten"], original.drawn["forgotten"], self._judge
            )
        return found


def _takes_texts(generator: generators.Generator) -> TypeGuard[text_to_image.TextToImage]:
    return isinstance(generator, text_to_image.TextToImage)


def _count_steps(
    models: list[generators.Generator],
    questions: asking.Questions,
    subject: Subject,
    sampling: generation_specs.Sampling,
) -> int:
    each = answers.count_steps(models[0], questions, sampling)
    if subject.samples is not None:
        each += membership.count_steps(subject.samples)
    attacks = attack.count_steps(models[0], questions, sampling)
    return len(models) * each + (attacks if _takes_texts(models[1]) else 0)


def _values(metrics: Mapping[str, specs.Measurement]) -> dict[str, float]:
    return {name: measurement.value for name, measurement in metrics.items()}


def _evidence(
    judge: judges.Judge,
    questions: asking.Questions,
    subject: Subject,
    sampling: generation_specs.Sampling,
) -> dict[str, Any]:
    return {
        "claim": _CLAIMS[subject.kind],
        "concepts": {concept: list(judge.terms_of(concept)) for concept in questions.concepts},
        "drawn": {name: len(asked) for name, asked in questions.by_name().items()},
        "judge": {
            "digest": judge.digest(),
            "terms": list(judge.terms),
            "exclusive": judge.exclusive,
            "may_refuse": judge.may_refuse,
            "held_out": {term: dict(found) for term, found in judge.held_out.items()},
            "unreliable": judge.unreliable(),
            "unknown": dict(judge.unknown),
        },
        "sampling": {"sampler": "DDIM", **sampling.model_dump(mode="json")},
        "seed": subject.spec.seed,
        "spec": subject.spec.model_dump(mode="json"),
        "mask": change_records.mask_record(subject.mask),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "numpy": np.__version__,
        },
        "threads": torch.get_num_threads(),  # other numbers give other last bits on a CPU
    }


def _pictures(
    drawn: Mapping[str, Mapping[str, answers.Answer]], questions: asking.Questions, seed: int
) -> dict[str, bytes]:
    labels = {
        name: [question.prompt for question in asked] for name, asked in questions.by_name().items()
    }
    if questions.unconditional:
        labels[answers.UNCONDITIONAL] = ["without a prompt"] * questions.unconditional
    found = {}
    for name, own in labels.items():
        if all(name in sets for sets in drawn.values()):
            pictures = {when: sets[name].pictures for when, sets in drawn.items()}
            found[name] = grids.beside(pictures, own, f"seed {seed}")
    return found
