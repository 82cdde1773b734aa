"""The models that forget, with their data: digits by class, pictures by text, as the demo has them.

Of the second a style is forgotten, an object, or what two words name together.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch

from benchmarks.diffusion import packs_of_demo
from salun_core import generation_specs, phrases, specs
from salun_core.diffusion import data, folders, generator, judge, judge_training, questions, tasks
from salun_core.diffusion.unlearn import contract

Name = Literal["digits", "icons", "object", "composition"]
_CLASS = "seven"
_CONCEPTS: Mapping[Name, specs.ConceptTarget] = {
    "icons": specs.ConceptTarget(kind="concept", concept="twemoji", replacement="fluent"),
    "object": specs.ConceptTarget(kind="concept", concept="cat face", replacement="bear"),
    "composition": specs.ConceptTarget(
        kind="concept",
        concept="red seven",
        replacement="red four",
        prompts=("the digit seven in red",),
    ),
}
_CHECKPOINTS = Path(__file__).parents[2] / "demo" / "checkpoints"
_CPU = torch.device("cpu")
# How the demo samples them: what its README and its judge know them by.
_GUIDANCE: Mapping[generation_specs.GenerativeFamily, float] = {
    "class_conditional_diffusion": 3.0,
    "text_to_image": 2.0,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A model, what it shall forget, and who judges it.

    Attributes:
        concept: what is forgotten, where it is no class.
        sampling: how it is drawn from.
        forget, retain: the training pictures.
        looker: the judge.
    """

    name: Name
    concept: specs.ConceptTarget | None
    sampling: generation_specs.Sampling
    forget: data.CaptionedSet
    retain: data.CaptionedSet
    looker: judge.Judge

    @property
    def kind(self) -> specs.ForgetKind:
        """Of the request."""
        return "class" if self.concept is None else "concept"

    @property
    def family(self) -> generation_specs.GenerativeFamily:
        """Of the model."""
        return family_of(self.name)

    def model(self) -> generator.Generator:
        """The base model, opened anew."""
        folder = "digits" if self.concept is None else "icons"
        labels = packs_of_demo.LABELS if self.concept is None else ()
        return folders.open_generator(_CHECKPOINTS / folder, self.family, labels, _CPU)

    def task(self, model: generator.Generator) -> contract.GenerationData:
        """What a method works on."""
        if self.concept is None:
            return tasks.of_class(model, self.forget, self.retain)
        return tasks.of_concepts(
            model,
            self.forget,
            self.retain,
            [self.concept],
            self.sampling,
            stand_ins=self.retain,
        )

    def asked(self, seed: int) -> questions.Questions:
        """What the models are asked."""
        images = self.sampling.images
        if self.concept is None:
            return questions.of_class([_CLASS], sorted(set(self.retain.texts)), images)
        return questions.of_concepts(
            self.looker, self.forget.texts, self.retain.texts, [self.concept], images, seed
        )


def family_of(name: Name) -> generation_specs.GenerativeFamily:
    """Which family the model of a subject is of."""
    return "text_to_image" if name in _CONCEPTS else "class_conditional_diffusion"


@functools.cache
def load(name: Name, images: int) -> Subject:
    """A subject; its judge is trained here."""
    family, concept = family_of(name), _CONCEPTS.get(name)
    pack = packs_of_demo.read(family, "train")
    gone = [row for row, text in enumerate(pack.texts) if _is_named(text, concept)]
    kept = sorted(set(range(len(pack))) - set(gone))
    return Subject(
        name=name,
        concept=concept,
        sampling=generation_specs.Sampling(
            steps=25, guidance_scale=_GUIDANCE[family], images=images
        ),
        forget=pack.subset(gone),
        retain=pack.subset(kept),
        looker=_judge(family),
    )


@functools.cache
def _judge(family: generation_specs.GenerativeFamily) -> judge.Judge:
    known, unseen = (packs_of_demo.read(family, split) for split in ("train", "holdout"))
    return judge_training.train(known, unseen, exclusive=family != "text_to_image")


def _is_named(text: str, concept: specs.ConceptTarget | None) -> bool:
    if concept is None:
        return text == _CLASS
    return phrases.matcher(concept.concept, concept.prompts)(text)
