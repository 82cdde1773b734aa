"""What the mask and the masked step cost beside what training costs anyway.

ResNet-18 (11 million weights) on 32×32 pictures, on the CPU with one thread. What is compared runs
in turn, so that a machine that slows down slows both, and processor time is counted, so that other
processes matter little. Every ratio is that of one turn.
"""

import multiprocessing
from collections.abc import Sequence
from concurrent import futures

import numpy as np
import torch
from torch.nn import functional

from benchmarks import figures, memory, turns
from salun_core import (
    architectures,
    images,
    masked_step,
    preprocessing,
    randomness,
    saliency,
    selection,
    specs,
)

_SAMPLES, _BATCH, _DENSITY = 256, 128, 0.5
_LARGE = 100_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything and print it; 1 where a target is missed and ``--strict`` is given."""
    parser = figures.parser("benchmarks.saliency", __doc__)
    parser.add_argument("--runs", type=int, default=20, help="turns of every comparison")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console = figures.console()
    evidence = figures.surroundings()
    subject = _Subject()
    found = []
    for stage in (_mask_stage, _threshold, _masked_step):
        with console.status(f"measuring: {(stage.__doc__ or '').splitlines()[0]}"):
            found += stage(subject, options.runs)
    evidence["subject"] = f"ResNet-18, {subject.weight_count:,} weights, one thread, float32"
    return figures.conclude(console, "mask and masked step", found, evidence, options)


class _Subject:
    def __init__(self) -> None:
        config = specs.parse_classifier_config(
            {
                "architecture": "resnet18",
                "num_classes": 10,
                "pretrained_cfg": {"input_size": [3, 32, 32], "crop_pct": 1.0},
            }
        )
        with randomness.seeded(0):
            self.net = architectures.build(config).eval()
        self.preprocess = preprocessing.Preprocessing(config.pretrained_cfg)
        generator = randomness.generator(0, "pictures")
        self.forget_set = images.ImageSet(
            torch.randint(0, 256, (_SAMPLES, 3, 32, 32), dtype=torch.uint8, generator=generator),
            torch.arange(_SAMPLES) % 10,
            tuple(f"{row:05d}" for row in range(_SAMPLES)),
        )
        self.weight_count = sum(p.numel() for p in self.net.parameters())

    def forward_backward(self) -> None:
        """What no method can do without: gradients of the forget set, summed."""
        self.net.zero_grad()
        for start in range(0, _SAMPLES, _BATCH):
            rows = slice(start, start + _BATCH)
            output = self.net(self.preprocess.normalise(self.forget_set.images[rows]))
            loss = functional.cross_entropy(output, self.forget_set.labels[rows], reduction="sum")
            (loss / _SAMPLES).backward()  # type: ignore[no-untyped-call]

    def mask(self) -> None:
        """The whole stage: gradients, threshold, packed bits."""
        saliency.saliency_mask(
            self.net, self.forget_set, self.preprocess, _DENSITY, batch_size=_BATCH
        )


def _mask_stage(subject: _Subject, runs: int) -> list[figures.Figure]:
    """The whole mask stage beside a bare forward and backward pass over the same images."""
    ratios = turns.ratios(subject.mask, subject.forward_backward, runs)
    name = f"mask stage / bare forward and backward of {_SAMPLES} pictures"
    return [figures.summarise(name, "times as long", ratios, at_most=1.10)]


def _threshold(subject: _Subject, runs: int) -> list[figures.Figure]:
    """The threshold beside a double argsort, and the memory it takes."""
    magnitudes = saliency.gradient_magnitudes(
        subject.net, subject.forget_set, subject.preprocess, batch_size=_BATCH
    )
    dense = {name: torch.rand_like(magnitude) for name, magnitude in magnitudes.items()}
    found = []
    # With many gradients of 0 the threshold is easy to find; without any it is hardest.
    for name, layers in (("its gradients", magnitudes), ("no zeros", dense)):
        ratios = _against_double_argsort(list(layers.values()), runs)
        found.append(
            figures.summarise(
                f"double argsort / threshold, {name}", "times as long", ratios, at_least=10.0
            )
        )
    for count in (subject.weight_count, _LARGE):
        # A process of its own, whose high-water mark nothing else has raised.
        with futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            extra, seconds = pool.submit(_threshold_cost, count, runs).result()
        name = f"threshold of {count:,} weights"
        found += [
            figures.summarise(
                f"{name}, memory beyond gradients", "MiB", [extra / memory.MEBIBYTE], at_most=200.0
            ),
            figures.summarise(name, "s", seconds, at_most=1.5),
        ]
    return found


def _against_double_argsort(layers: list[torch.Tensor], runs: int) -> list[float]:
    flat = torch.cat([layer.reshape(-1) for layer in layers]).numpy()
    wanted = round(_DENSITY * len(flat))

    def double_argsort() -> None:
        ranks = np.argsort(np.argsort(-flat))
        _ = ranks < wanted

    return turns.ratios(double_argsort, lambda: selection.kth_largest(layers, wanted), runs)


def _threshold_cost(count: int, runs: int) -> tuple[int, list[float]]:
    """Bytes by which a threshold of that many raises the high-water mark, and seconds of each."""
    generator = randomness.generator(0, "magnitudes")
    layers = [torch.rand(part, generator=generator) for part in _parts(count)]
    selection.kth_largest([layers[0][:100_000]], 50_000)  # what the first call loads for good
    before = memory.own_peak()
    seconds = [
        turns.seconds(lambda: selection.kth_largest(layers, round(_DENSITY * count)))
        for _ in range(runs)
    ]
    return memory.own_peak() - before, seconds


def _parts(count: int) -> list[int]:
    """Layer sizes of at most 2**22."""
    size = 1 << 22
    return [min(size, count - start) for start in range(0, count, size)]


def _masked_step(subject: _Subject, runs: int) -> list[figures.Figure]:
    """A whole training step, masked and not: forward, backward, update."""
    mask = saliency.saliency_mask(subject.net, subject.forget_set, subject.preprocess, _DENSITY)
    masked = masked_step.MaskedOptimizer(subject.net, mask, momentum=0.9, weight_decay=5e-4)
    bare = torch.optim.SGD(subject.net.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4)

    def with_mask() -> None:
        subject.forward_backward()
        masked.step(1e-6)

    def without() -> None:
        subject.forward_backward()
        bare.step()

    ratios = turns.ratios(with_mask, without, runs)
    return [figures.summarise("masked step / bare step", "times as long", ratios, at_most=1.05)]


if __name__ == "__main__":
    raise SystemExit(main())
