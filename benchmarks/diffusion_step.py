"""What SalUn costs a diffusion model beside a bare training step on the same samples.

A class-conditional U-Net of 0.7 million weights on the CPU with one thread, 32 forget and 64 retain
samples a step. Whole runs are compared, so the teacher's copy, its forward passes, drawn noise,
the moving average and the proof that frozen weights stayed are all counted; runs take turns, and
processor time is counted. The bare step is forward, backward and Adam over the same 96 samples.
"""

import copy
from collections.abc import Sequence

import diffusers
import torch
from torch.nn import functional

from benchmarks import figures, turns
from salun_core import generation_specs, images, randomness
from salun_core.diffusion import class_conditional, codec, data, tasks
from salun_core.diffusion.unlearn import methods

_STEPS = 10  # of a run
_CLASSES = tuple(f"class {number}" for number in range(10))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything and print it; 1 where a target is missed and ``--strict`` is given."""
    parser = figures.parser("benchmarks.diffusion_step", __doc__)
    parser.add_argument("--runs", type=int, default=7, help="turns of every comparison")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console = figures.console()
    evidence = figures.surroundings()
    subject = Subject()
    with console.status("measuring steps of a diffusion model"):
        found = _figures(subject, options.runs)
    evidence["subject"] = f"UNet2DModel, {subject.weight_count:,} weights, 4 x 8 x 8, one thread"
    return figures.conclude(console, "SalUn step of a diffusion model", found, evidence, options)


class Subject:
    """A small class-conditional model, random pictures, and SalUn's mask of it."""

    def __init__(self) -> None:
        with randomness.seeded(0):
            net = diffusers.UNet2DModel(
                sample_size=8,
                in_channels=4,
                out_channels=4,
                block_out_channels=(32, 64),
                layers_per_block=1,
                down_block_types=("DownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "UpBlock2D"),
                norm_num_groups=8,
                num_class_embeds=11,
            ).eval()
        self.generator = class_conditional.ClassConditional(
            denoiser=net,
            weights_file="unet/diffusion_pytorch_model.safetensors",
            scheduler_config={"beta_schedule": "squaredcos_cap_v2"},
            codec=codec.Pixels(4, 8),
            classes=_CLASSES,
            null_class=10,
        )
        self.weight_count = sum(parameter.numel() for parameter in net.parameters())
        forget, retain = _pictures(_CLASSES[:1], 64), _pictures(_CLASSES[1:], 576)
        self.data = tasks.of_class(self.generator, forget, retain)
        self.spec = generation_specs.GenerationSpec(steps=_STEPS)
        self.mask = methods.mask_for(self.generator, self.data, self.spec)
        self.batch_size = self.spec.forget_batch_size + self.spec.retain_batch_size

    def masked(self) -> None:
        """A run of SalUn."""
        self._run(self.spec, masked=True)

    def unmasked(self) -> None:
        """The same run with every weight free."""
        self._run(self.spec, masked=False)

    def bare(self) -> None:
        """As many training steps on as many samples, and nothing else."""
        net = copy.deepcopy(self.generator.denoiser)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
        latents, steps, classes = self._batch()
        for _ in range(_STEPS):
            optimizer.zero_grad()
            loss = functional.mse_loss(net(latents, steps, classes).sample, latents)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    @torch.no_grad()
    def forward(self) -> None:
        """As many forward passes over as many samples."""
        latents, steps, classes = self._batch()
        for _ in range(_STEPS):
            self.generator.denoiser(latents, steps, classes)

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = torch.arange(self.batch_size)
        return self.data.retain.latents[rows], rows, rows % len(_CLASSES)

    def copied(self) -> class_conditional.ClassConditional:
        """The model around a copy of its net."""
        return self.generator.with_denoiser(copy.deepcopy(self.generator.denoiser))

    def _run(self, spec: generation_specs.GenerationSpec, *, masked: bool) -> None:
        methods.unlearn(self.copied(), self.data, self.mask if masked else None, spec)


def _pictures(classes: Sequence[str], count: int) -> data.CaptionedSet:
    random = randomness.generator(0, *classes)
    pictures = torch.randint(0, 256, (count, 1, 16, 16), dtype=torch.uint8, generator=random)
    texts = tuple(classes[row % len(classes)] for row in range(count))
    ids = tuple(f"{classes[0]}/{row:05d}" for row in range(count))
    return data.CaptionedSet(images.Pictures(pictures, torch.arange(count)), texts, ids)


def _figures(subject: Subject, runs: int) -> list[figures.Figure]:
    mask_costs = turns.ratios(subject.masked, subject.unmasked, runs)
    beside_bare = turns.ratios(subject.masked, subject.bare, runs)
    forwards = turns.ratios(subject.bare, subject.forward, runs)
    # Of the same turn: how many forward passes a masked step takes beyond a bare one.
    beyond = [(ratio - 1.0) * bare for ratio, bare in zip(beside_bare, forwards, strict=True)]
    return [
        figures.summarise(
            "masked run / run without a mask", "times as long", mask_costs, at_most=1.10
        ),
        figures.summarise("masked run / bare training", "times as long", beside_bare),
        figures.summarise("forward passes beyond bare training", "a step", beyond, at_most=2.2),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
