"""What every method for diffusion models takes and gives."""

import dataclasses
import functools
from collections.abc import Callable

import torch

from salun_core import errors, generation_specs, masks, progress
from salun_core.diffusion import data as datasets
from salun_core.diffusion import generator as generators
from salun_core.unlearn import contract


@dataclasses.dataclass(frozen=True, eq=False)
class GenerationData:
    """What a method may look at.

    Attributes:
        forget: pictures of what is forgotten, with the conditions that must no longer bring it.
        retain: pictures of what is kept.
        anchors: conditions (A, ...) that may stand in for forgotten ones: c′ of the paper.
        choices: int64 (K, k), for each text of ``forget`` the rows of ``anchors`` to choose from.
        holdout: pictures never trained on; needed by ``matched`` targets.
        stand_ins: pictures of what is drawn instead, each with a forgotten condition that shall
            bring it from now on; its texts are those of ``forget``. ``replacement`` targets need
            them.
        concepts: the phrases that are forgotten, for methods that look for their words.
    """

    forget: datasets.EncodedSet
    retain: datasets.EncodedSet
    anchors: torch.Tensor
    choices: torch.Tensor
    holdout: datasets.EncodedSet | None = None
    stand_ins: datasets.EncodedSet | None = None
    concepts: tuple[str, ...] = ()

    def anchors_of(self, texts: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        """A condition to stand in for each of these texts of ``forget`` (B,), drawn anew."""
        options = self.choices[texts]
        drawn = torch.randint(0, options.shape[1], (len(texts), 1), generator=random)
        rows = options.gather(1, drawn).squeeze(1)
        return self.anchors[rows]

    def stand_ins_of(self, index: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        """Latents (B, ...) of a stand-in for each of these forget samples, drawn anew.

        A sample whose text has none stands in for itself.

        Raises:
            InvalidDataError: nobody looked for stand-ins.
        """
        found, counts = self._found_stand_ins(), self.stand_in_counts
        texts, latents = self.forget.rows[index], self.forget.latents[index].clone()
        turns = torch.rand(len(texts), generator=random).mul(counts[texts]).long()
        places = (counts.cumsum(0) - counts)[texts] + turns
        has = counts[texts] > 0
        latents[has] = found.latents[self._stand_ins_by_text[places[has]]]
        return latents

    @functools.cached_property
    def stand_in_counts(self) -> torch.Tensor:
        """How many stand-ins each text of ``forget`` has, int64 (K,).

        Raises:
            InvalidDataError: nobody looked for stand-ins.
        """
        return torch.bincount(self._found_stand_ins().rows, minlength=len(self.forget.texts))

    @functools.cached_property
    def _stand_ins_by_text(self) -> torch.Tensor:
        """Positions of the stand-ins, those of the first text first, int64 (M,)."""
        return self._found_stand_ins().rows.argsort(stable=True)

    def _found_stand_ins(self) -> datasets.EncodedSet:
        if self.stand_ins is None:
            raise errors.InvalidDataError(
                "got no pictures of what is drawn instead, expected some for replacement targets"
            )
        return self.stand_ins


# In place on the generator's denoiser, which must hold the original weights, also on a resume.
Method = Callable[
    [
        generators.Generator,
        GenerationData,
        masks.SaliencyMask | None,
        generation_specs.GenerationSpec,
        progress.Progress,
        progress.Checkpoints | None,
    ],
    contract.UnlearnResult,
]


def check_data(data: GenerationData) -> None:
    """The sets can be used together.

    Raises:
        InvalidDataError: a set is empty or there is nothing to stand in for what is forgotten.
    """
    for name, found in (("forget", data.forget), ("retain", data.retain)):
        if not len(found):
            raise errors.InvalidDataError(f"got an empty {name} set, expected samples")
    if data.choices.shape[0] != len(data.forget.texts):
        raise errors.InvalidDataError(
            f"got anchors for {data.choices.shape[0]} texts, expected {len(data.forget.texts)}"
        )
