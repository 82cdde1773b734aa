"""What is to be forgotten: random samples, a class, somebody's pictures."""

import dataclasses
from typing import Literal

import torch

from benchmarks.quality import data
from salun_core import images, randomness, specs

Name = Literal["samples_10", "samples_50", "class", "cluster"]
NAMES: tuple[Name, ...] = ("samples_10", "samples_50", "class", "cluster")
TITLES: dict[Name, str] = {
    "samples_10": "10 % of the samples",
    "samples_50": "50 % of the samples",
    "class": "one class",
    "cluster": "one subject-like cluster",
}
_CLUSTER = 60


@dataclasses.dataclass(frozen=True)
class Scenario:
    """The split of one draw's training set."""

    name: Name
    kind: specs.ForgetKind
    forget_set: images.ImageSet
    retain_set: images.ImageSet


def make(name: Name, drawn: data.Drawn, seed: int) -> Scenario:
    """The same split for the same seed."""
    chosen = torch.zeros(len(drawn.train_set), dtype=torch.bool)
    if name == "class":
        chosen = drawn.train_set.labels == seed % 10
    elif name == "cluster":
        chosen[_cluster(drawn.train_set, seed)] = True
    else:
        order = torch.randperm(len(chosen), generator=randomness.generator(seed, "forget"))
        chosen[order[: len(chosen) * int(name.removeprefix("samples_")) // 100]] = True
    return Scenario(
        name=name,
        kind="class" if name == "class" else "samples",
        forget_set=drawn.train_set.subset(chosen.nonzero().flatten().tolist()),
        retain_set=drawn.train_set.subset((~chosen).nonzero().flatten().tolist()),
    )


def _cluster(train_set: images.ImageSet, seed: int) -> torch.Tensor:
    """A picture and those of its class that look most like it, as one person's would."""
    middle = int(torch.randint(len(train_set), (1,), generator=randomness.generator(seed, "who")))
    same = (train_set.labels == train_set.labels[middle]).nonzero().flatten()
    flat = train_set.images[same].flatten(1).float()
    distance = (flat - train_set.images[middle].flatten().float()).square().sum(dim=1)
    return same[distance.argsort(stable=True)[:_CLUSTER]]
