"""The icons' autoencoder: 32x32 pictures to 8x8 latents of four channels, trained from scratch."""

from collections.abc import Callable

import diffusers
import torch

from demo.training import icons_pack

STEPS = 1200
BATCH = 16
LEARNING_RATE = 2e-3
WARM_UP = 50
# Mean KL against mean squared error: latents as noisy as a twentieth of a pixel's range allows.
KL_WEIGHT = 3e-4


def train(
    pack: icons_pack.Pack, seed: int, report: Callable[[str], None]
) -> diffusers.AutoencoderKL:
    """An autoencoder of the pack, ready to use: its latents come out with unit variance."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = _untrained().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, STEPS, pct_start=WARM_UP / STEPS, cycle_momentum=False
    )
    for step in range(STEPS):
        pictures = pack.pictures[pack.draw(BATCH, generator)]
        error, divergence = _losses(net, pictures.contiguous(memory_format=torch.channels_last))
        optimizer.zero_grad()
        (error + KL_WEIGHT * divergence).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            report(f"autoencoder {step:5d} of {STEPS}: squared error {error.item():.4f}")
    net.eval()
    net.register_to_config(scaling_factor=round(1.0 / encode(net, pack.pictures).std().item(), 4))
    return net


@torch.no_grad()
def encode(net: diffusers.AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    """(N, 3, 32, 32) pictures to (N, 4, 8, 8) scaled latents, the means of their Gaussians."""
    means = [net.encode(part).latent_dist.mean for part in torch.split(pictures, 256)]
    latents: torch.Tensor = torch.cat(means) * net.config.scaling_factor
    return latents


def _untrained() -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        sample_size=32,
        latent_channels=4,
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def _losses(
    net: diffusers.AutoencoderKL, pictures: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean squared error over pixels and mean KL divergence over latents."""
    latent = net.encode(pictures).latent_dist
    error = (net.decode(latent.sample()).sample - pictures).square().mean()
    return error, latent.kl().mean() / latent.mean[0].numel()
