"""What one net drew, and what the judge said of it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch

from salun_core import errors, generation_specs, progress, randomness
from salun_core.diffusion import generator as generators
from salun_core.diffusion import judge as judges
from salun_core.diffusion import questions as asking
from salun_core.diffusion import sampling as drawing

UNCONDITIONAL = "unconditional"


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """Pictures for one list of questions.

    Attributes:
        pictures: uint8 (N, C, H, W).
        reading: the judge's, of the same.
    """

    pictures: torch.Tensor
    reading: judges.Reading


def ask(
    generator: generators.Generator,
    judge: judges.Judge,
    questions: asking.Questions,
    sampling: generation_specs.Sampling,
    seed: int,
    after_step: Callable[[], None],
) -> dict[str, Answer]:
    """Every list of questions, drawn once; nets asked with the same seed start from one noise.

    Args:
        generator: the model.
        judge: looks at what was drawn.
        questions: what to ask.
        sampling: steps and guidance.
        seed: of the noise; every list has its own.
        after_step: called :func:`count_steps` times.

    Raises:
        InvalidDataError: a prompt is no condition of the model.
        CancelledError: from ``after_step``.
    """

    def draw(name: str, conditions: torch.Tensor, how: generation_specs.Sampling) -> Answer:
        own = randomness.derive_seed(seed, "verification", name)
        pictures = drawing.draw(generator, conditions, how, own, progress.each(after_step))
        return Answer(pictures, judge.read(pictures))

    found = {
        name: draw(name, generator.conditions([question.prompt for question in asked]), sampling)
        for name, asked in questions.by_name().items()
    }
    null = _null(generator)
    if questions.unconditional and null is not None:
        free = sampling.model_copy(update={"guidance_scale": 1.0})
        found[UNCONDITIONAL] = draw(
            UNCONDITIONAL, null.expand(questions.unconditional, *null.shape[1:]), free
        )
    return found


def count_steps(
    generator: generators.Generator,
    questions: asking.Questions,
    sampling: generation_specs.Sampling,
) -> int:
    """How often ``after_step`` is called."""
    sizes = [len(asked) for asked in questions.by_name().values()]
    if _null(generator) is not None:
        sizes.append(questions.unconditional)
    return sampling.steps * sum(len(drawing.batches(generator, size)) for size in sizes)


def recognised(
    judge: judges.Judge, answer: Answer, asked: Sequence[asking.Question]
) -> torch.Tensor:
    """Whether each picture shows what its question looks for, bool (N,)."""
    hits = torch.zeros(len(asked), dtype=torch.bool)
    for subject in {question.subject for question in asked}:
        rows = torch.tensor([question.subject == subject for question in asked])
        hits[rows] = answer.reading.told[rows][:, judge.columns(subject)].all(dim=1)
    return hits


def shares(judge: judges.Judge, answer: Answer) -> Mapping[str, float]:
    """The share of the pictures that show each term, or nothing known, where it is not 0."""
    told = answer.reading.told
    means = [*told.double().mean(dim=0).tolist(), (~told.any(dim=1)).double().mean().item()]
    names = (*judge.terms, judges.NOTHING)
    return {name: share for name, share in zip(names, means, strict=True) if share > 0.0}


def _null(generator: generators.Generator) -> torch.Tensor | None:
    try:
        return generator.null_condition()
    except errors.InvalidDataError:
        return None
