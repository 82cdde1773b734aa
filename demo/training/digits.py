"""Trains the net that draws digits: class-conditional diffusion, 0.65 M weights, on one CPU core.

``python -m demo.training.digits --out DIR`` writes ``DIR/unet`` and ``DIR/scheduler`` as diffusers'
``save_pretrained`` does. The same seed gives the same bytes on the same machine.

The net sees a digit of 16 × 16 pixels as ``pixel_unshuffle(2)`` makes it: 4 channels of 8 × 8,
which takes a quarter of the time. Its classes are ``demo.digits.LABELS`` in order, and after them
one class that stands for none, for guidance without a classifier (Ho and Salimans 2022, arXiv
2207.12598).
"""

import argparse
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import diffusers
import numpy as np
import rich.progress
import torch
from PIL import Image

from demo import clean_digits, digits
from salun_core import progress, randomness

SHUFFLE = 2  # pixels of a block's side that become channels
NULL_CLASS = len(digits.LABELS)  # the class that stands for none
STEPS = 1600
BATCH_SIZE = 64
LEARNING_RATE = 2e-3  # at its peak
WARM_UP = 0.05  # share of the steps
AVERAGING = 0.995  # decay of the weights' moving average
LABEL_DROP = 0.1  # share of samples that are shown with the null class


def scheduler() -> diffusers.DDIMScheduler:
    """The noise schedule: 1,000 steps, cosine (Nichol and Dhariwal 2021, arXiv 2102.09672).

    It clips the predicted image. Sampling must then pass ``use_clipped_model_output=True`` to
    ``step``, or image and noise do not fit together and digits are spoilt.
    """
    return diffusers.DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="epsilon",
        clip_sample=True,
    )


def untrained(seed: int) -> diffusers.UNet2DModel:
    """The net as a seed draws it: 654,180 weights, two resolutions, classes added to the time."""
    with randomness.seeded(seed, "initialisation"):
        return diffusers.UNet2DModel(
            sample_size=clean_digits.SIDE // SHUFFLE,
            in_channels=SHUFFLE**2,
            out_channels=SHUFFLE**2,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            norm_num_groups=8,
            num_class_embeds=NULL_CLASS + 1,
        )


def training_set(chosen: Sequence[digits.Digit]) -> tuple[torch.Tensor, torch.Tensor]:
    """Digits as the net sees them: (N, 4, 8, 8) in [-1, 1], and their classes (N,), int64."""
    pictures = np.stack([np.asarray(Image.open(io.BytesIO(digit.png))) for digit in chosen])
    pixels = torch.from_numpy(pictures).float().div(127.5).sub(1.0)  # (N, 16, 16)
    labels = torch.tensor([digits.LABELS.index(digit.label) for digit in chosen])
    return torch.nn.functional.pixel_unshuffle(pixels.unsqueeze(1), SHUFFLE), labels


def train(
    chosen: Sequence[digits.Digit],
    seed: int,
    report: progress.Progress = progress.silent,
    steps: int = STEPS,
) -> diffusers.UNet2DModel:
    """A net trained on digits, its weights averaged over the last few hundred steps, in eval mode.

    The embedding of a class that no digit has keeps the values that it was drawn with.
    """
    images, labels = training_set(chosen)
    noising = scheduler()
    net = untrained(seed)
    averaged = torch.optim.swa_utils.AveragedModel(
        net,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGING),  # type: ignore[no-untyped-call]
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    generator = randomness.generator(seed, "training")
    for step in range(steps):
        rows = torch.randint(len(images), (BATCH_SIZE,), generator=generator)
        loss = denoising_loss(net, noising, images[rows], _drop(labels[rows], generator), generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        averaged.update_parameters(net)
        report(step + 1, steps)
    trained: diffusers.UNet2DModel = averaged.module.eval()
    return trained


def denoising_loss(
    net: diffusers.UNet2DModel,
    noising: diffusers.DDIMScheduler,
    images: torch.Tensor,
    labels: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Mean squared error of the predicted noise at times drawn evenly (Ho et al. 2020, eq. 14).

    Args:
        net: predicts the noise in an image, given time and class.
        noising: the noise schedule.
        images: (B, 4, 8, 8) in [-1, 1].
        labels: (B,), int64; :data:`NULL_CLASS` stands for none.
        generator: draws times and noise.
    """
    times = torch.randint(noising.config.num_train_timesteps, (len(images),), generator=generator)
    noise = torch.randn(images.shape, generator=generator)
    predicted = net(noising.add_noise(images, noise, times), times, labels).sample
    return torch.nn.functional.mse_loss(predicted, noise)


def save(net: diffusers.UNet2DModel, folder: Path) -> None:
    """The net in half precision and its noise schedule, in diffusers' layout."""
    net.half().save_pretrained(folder / "unet")
    scheduler().save_pretrained(folder / "scheduler")


def main() -> int:
    """Train and save; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m demo.training.digits", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    parser.add_argument("--without", choices=digits.LABELS, help="a class to train without")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS, help="of batches of 64 digits")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the net is small: more threads only wait for each other
    chosen = [
        digit
        for digit in clean_digits.load()
        if digit.split == "train" and digit.label != arguments.without
    ]
    columns = (*rich.progress.Progress.get_default_columns(), rich.progress.MofNCompleteColumn())
    with rich.progress.Progress(*columns) as shown:
        task = shown.add_task(f"training on {len(chosen)} digits", total=arguments.steps)
        net = train(
            chosen,
            arguments.seed,
            lambda step, _: shown.update(task, completed=step),
            arguments.steps,
        )
    save(net, arguments.out)
    return 0


def _drop(labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    dropped = torch.rand(labels.shape, generator=generator) < LABEL_DROP
    return labels.masked_fill(dropped, NULL_CLASS)


def _rate(step: int, steps: int) -> float:
    """Share of the peak learning rate: a linear warm-up, then half a cosine down to 0."""
    warm_up = WARM_UP * steps
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm_up) / (steps - warm_up))


if __name__ == "__main__":
    sys.exit(main())
