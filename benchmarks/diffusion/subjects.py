"""The models that forget, with their data: digits by class, icons by text, as the demo has them."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch

from benchmarks.diffusion import packs_of_demo
from salun_core import generation_specs, specs
from salun_core.diffusion import data, folders, generator, judge, judge_training, questions, tasks
from salun_core.diffusion.unlearn import contract

Name = Literal["digits", "icons"]
CLASS = "seven"
# How the demo samples them: what its README and its judge know them by.
_GUIDANCE: Mapping[Name, float] = {"digits": 3.0, "icons": 2.0}
CONCEPT = specs.ConceptTarget(kind="concept", concept="twemoji", replacement="noto")


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A model, what it shall forget, and who judges it.

    Attributes:
        kind: of the request.
        sampling: how it is drawn from.
        forget, retain: the training pictures.
        looker: the judge.
    """

    name: Name
    kind: specs.ForgetKind
    family: generation_specs.GenerativeFamily
    sampling: generation_specs.Sampling
    forget: data.CaptionedSet
    retain: data.CaptionedSet
    looker: judge.Judge

    def model(self) -> generator.Generator:
        """The base model, opened anew."""
        return _opened(self.name, self.family)

    def task(self, model: generator.Generator) -> contract.GenerationData:
        """What a method works on."""
        if self.kind == "class":
            return tasks.of_class(model, self.forget, self.retain)
        return tasks.of_concepts(model, self.forget, self.retain, [CONCEPT], self.sampling)

    def asked(self, seed: int) -> questions.Questions:
        """What the models are asked."""
        images = self.sampling.images
        if self.kind == "class":
            kept = sorted(set(self.retain.texts))
            return questions.of_class([CLASS], kept, images)
        return questions.of_concepts(
            self.looker, self.forget.texts, self.retain.texts, [CONCEPT], images, seed
        )


@functools.cache
def load(name: Name, images: int) -> Subject:
    """A subject; its judge is trained here."""
    pack, unseen = packs_of_demo.read(name, "train"), packs_of_demo.read(name, "holdout")
    word = CLASS if name == "digits" else CONCEPT.concept
    gone = [row for row, text in enumerate(pack.texts) if word in text.split()]
    kept = sorted(set(range(len(pack))) - set(gone))
    return Subject(
        name=name,
        kind="class" if name == "digits" else "concept",
        family="class_conditional_diffusion" if name == "digits" else "text_to_image",
        sampling=generation_specs.Sampling(steps=25, guidance_scale=_GUIDANCE[name], images=images),
        forget=pack.subset(gone),
        retain=pack.subset(kept),
        looker=judge_training.train(pack, unseen, exclusive=name == "digits"),
    )


def _opened(name: Name, family: generation_specs.GenerativeFamily) -> generator.Generator:
    folder = Path(__file__).parents[2] / "demo" / "checkpoints" / name
    labels = packs_of_demo.LABELS if name == "digits" else ()
    return folders.open_generator(folder, family, labels, torch.device("cpu"))
