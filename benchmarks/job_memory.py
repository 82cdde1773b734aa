"""How much more memory a whole job needs than training the same net.

ResNet-18 (11 million weights), random pictures, on the CPU with one thread. Every run is two
processes that hold the same net and the same pictures: one trains an epoch with SGD and momentum,
the other does what a job does (mask, one epoch of the default recipe, verification), with batches
of the same size. *Growth* counts from where net and pictures are in memory, so that what the
libraries themselves take hides nothing. More epochs or pictures take time, not memory.
"""

import copy
import dataclasses
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent import futures

import torch
from torch.nn import functional

from benchmarks import figures, memory
from salun_core import (
    architectures,
    images,
    preprocessing,
    randomness,
    specs,
    trials,
    verification,
)
from salun_core.unlearn import contract, methods

_SHARES = {"forget": 0.1, "retain": 0.6, "holdout": 0.15, "test": 0.15}
_SPEC = specs.default_spec("samples").model_copy(update={"epochs": 1})


@dataclasses.dataclass(frozen=True)
class Pictures:
    """How many there are, and how high and wide in pixels."""

    count: int
    side: int


@dataclasses.dataclass(frozen=True)
class Memory:
    """Of one process, in bytes: its high-water mark, and that beyond net and pictures."""

    peak: int
    growth: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything and print it; 1 where a target is missed and ``--strict`` is given."""
    parser = figures.parser("benchmarks.job_memory", __doc__)
    parser.add_argument("--runs", type=int, default=3, help="pairs of processes")
    parser.add_argument("--pictures", type=int, default=1000, help="how many, over all splits")
    parser.add_argument("--side", type=int, default=32, help="their height and width in pixels")
    options = parser.parse_args(arguments)
    pictures = Pictures(options.pictures, options.side)
    console = figures.console()
    evidence = figures.surroundings()
    bare, jobs = [], []
    for turn in range(options.runs):
        with console.status(f"pair {turn + 1} of {options.runs}"):
            bare.append(_alone(_train, pictures))
            jobs.append(_alone(_job, pictures))
    evidence["subject"] = (
        f"ResNet-18, {pictures.count:,} pictures of {pictures.side}×{pictures.side}, "
        f"batches of {_SPEC.batch_size}, one thread, float32"
    )
    return figures.conclude(console, "memory of a job", _figures(bare, jobs), evidence, options)


def _figures(bare: Sequence[Memory], jobs: Sequence[Memory]) -> list[figures.Figure]:
    found = []
    for name, held in (("bare training", bare), ("job", jobs)):
        for kind in ("peak", "growth"):
            values = [getattr(one, kind) / memory.MEBIBYTE for one in held]
            found.append(figures.summarise(f"{name}: {kind}", "MiB", values))
    peaks = [job.peak / training.peak for job, training in zip(jobs, bare, strict=True)]
    growths = [job.growth / training.growth for job, training in zip(jobs, bare, strict=True)]
    found.append(figures.summarise("peak, job / bare training", "times", peaks, at_most=1.2))
    found.append(figures.summarise("growth, job / bare training", "times", growths))
    return found


def _alone(work: "Callable[[_Subject], None]", pictures: Pictures) -> Memory:
    """What the work takes in a process of its own, whose high-water mark nothing has raised."""
    with futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, work, pictures).result()


def _measure(work: "Callable[[_Subject], None]", pictures: Pictures) -> Memory:
    torch.set_num_threads(1)
    subject = _Subject(pictures)
    held = memory.Growth([os.getpid()])
    work(subject)
    return Memory(held.peak(), held.growth())


class _Subject:
    def __init__(self, pictures: Pictures) -> None:
        side = pictures.side
        self.config = specs.parse_classifier_config(
            {
                "architecture": "resnet18",
                "num_classes": 10,
                "pretrained_cfg": {"input_size": [3, side, side], "crop_pct": 1.0},
            }
        )
        with randomness.seeded(0):
            self.net = architectures.build(self.config)
        self.sets = {
            name: _random_set(name, round(share * pictures.count), side)
            for name, share in _SHARES.items()
        }


def _random_set(name: str, count: int, side: int) -> images.ImageSet:
    generator = randomness.generator(0, name)
    return images.ImageSet(
        torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator),
        torch.arange(count) % 10,
        tuple(f"{name}-{row:05d}" for row in range(count)),
    )


def _train(subject: _Subject) -> None:
    """One epoch of plain training on retain and forget set."""
    preprocess = preprocessing.Preprocessing(subject.config.pretrained_cfg)
    net = subject.net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    for name in ("retain", "forget"):
        own = subject.sets[name]
        for rows in images.shuffled_batches(len(own), _SPEC.batch_size, 0, name):
            optimizer.zero_grad()
            logits = net(preprocess.normalise(own.images[rows]))
            functional.cross_entropy(logits, own.labels[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def _job(subject: _Subject) -> None:
    """Mask, recipe and verification, in one process as a worker has them."""
    sets = subject.sets
    unlearned = copy.deepcopy(subject.net)
    mask = trials.mask_for(subject.net, subject.config, sets["forget"], _SPEC)
    data = contract.UnlearningData(sets["forget"], sets["retain"], sets["holdout"])
    result = methods.unlearn(unlearned, subject.config, data, mask, _SPEC)
    verification.verify(
        subject.net,
        unlearned,
        subject.config,
        verification.Splits(sets["forget"], sets["retain"], sets["holdout"], sets["test"]),
        verification.Subject("samples", mask, result.changed_buffers, _SPEC),
    )


if __name__ == "__main__":
    raise SystemExit(main())
