"""The demo's text-to-image model, trained from scratch on the icons' pack.

``python -m demo.training.icons --out DIR`` writes the folder of a ``StableDiffusionPipeline``:
tokenizer, text encoder, U-Net, autoencoder and scheduler, in half precision. The autoencoder is
trained first; then U-Net and text encoder together, on v-prediction (Salimans and Ho 2022, arXiv
2202.00512) of its latents, with captions left out at times, so that samples can be guided (Ho and
Salimans 2022, arXiv 2207.12598). Their running average is what is written. ``--start DIR`` goes on
with what an earlier call wrote, at a learning rate that falls to nothing. The demo's checkpoint has
had 5,500 steps, and 5,000 more with ``--start`` and ``--seed 1``.
"""

import argparse
import copy
import dataclasses
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import diffusers
import rich.console
import torch
import transformers

from demo.training import icons_data, icons_pack, icons_tokenizer, icons_vae

GUIDANCE = 2.0  # of samples; from 1.5 to 3 as many are told right
SAMPLING_STEPS = 25
STEPS = 5500
BATCH = 32
LEARNING_RATE = 1e-3
WARM_UP = 100
AVERAGE = 0.998  # of the weights that are kept, a step
CAPTIONS_DROPPED = 0.1
WRITTEN_EVERY = 250  # steps


@dataclasses.dataclass(eq=False)
class Denoiser:
    """What is trained on captions: both nets, and the scheduler that says how noise is added."""

    unet: diffusers.UNet2DConditionModel
    text_encoder: transformers.CLIPTextModel
    scheduler: diffusers.DDIMScheduler

    def parameters(self) -> list[torch.Tensor]:
        """Every weight of both nets."""
        return list(itertools.chain(self.unet.parameters(), self.text_encoder.parameters()))


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pack", type=Path, default=icons_data.PACK)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument(
        "--vae", type=Path, help="a trained autoencoder's folder, to skip that part"
    )
    parser.add_argument("--start", type=Path, help="a trained pipeline's folder, to go on with")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    report = rich.console.Console().print
    pack = icons_pack.read(chosen.pack, "train")
    trained = chosen.start / "vae" if chosen.start else chosen.vae
    if trained:
        vae = diffusers.AutoencoderKL.from_pretrained(trained, use_safetensors=True).eval()
    else:
        vae = icons_vae.train(pack, chosen.seed, report)
    start = chosen.start
    train(pack, vae, chosen.out, start=start, steps=chosen.steps, seed=chosen.seed, report=report)


def train(
    pack: icons_pack.Pack,
    vae: diffusers.AutoencoderKL,
    out: Path,
    *,
    start: Path | None = None,
    steps: int,
    seed: int,
    report: Callable[[str], None],
) -> None:
    """Train U-Net and text encoder; write the whole pipeline into ``out``, the average of late."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    tokenizer = icons_tokenizer.train(pack.texts)
    latents = icons_vae.encode(vae, pack.pictures)
    tokens = _tokens(tokenizer, pack.texts)
    nothing = _tokens(tokenizer, [""])
    live = untrained(tokenizer)
    if start:
        _take_weights(live, start)
    average = copy.deepcopy(live)
    optimizer = torch.optim.AdamW(
        live.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _rate(step, steps if start else None)
    )
    losses = []
    for step in range(1, steps + 1):
        rows = pack.draw(BATCH, generator)
        dropped = torch.rand(BATCH, 1, generator=generator) < CAPTIONS_DROPPED
        asked = torch.where(dropped, nothing, tokens[rows])  # (B, L)
        loss = _loss(live, latents[rows], asked, generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(live.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        _follow(average, live, step)
        losses.append(loss.item())
        if step % WRITTEN_EVERY == 0 or step == steps:
            recent = losses[-WRITTEN_EVERY:]
            report(f"denoiser {step:5d} of {steps}: loss {sum(recent) / len(recent):.4f}")
            write(average, vae, tokenizer, out)


def _rate(step: int, steps: int | None) -> float:
    """The share of the learning rate at a step: it rises, then stays or falls until ``steps``."""
    rising = min(1.0, (step + 1) / WARM_UP)
    return rising if steps is None else rising * math.cos(math.pi / 2 * step / steps) ** 2


def _take_weights(live: Denoiser, folder: Path) -> None:
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet", use_safetensors=True)
    text = transformers.CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    live.unet.load_state_dict(unet.float().state_dict())
    live.text_encoder.load_state_dict(text.state_dict())


def untrained(tokenizer: transformers.CLIPTokenizer) -> Denoiser:
    """Both nets as drawn at random, for this vocabulary."""
    text = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        projection_dim=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=icons_tokenizer.LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type=None,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=96,
        attention_head_dim=(2, 4),  # heads, in diffusers' naming
        norm_num_groups=16,
        resnet_time_scale_shift="scale_shift",
    )
    return Denoiser(
        unet.to(memory_format=torch.channels_last),
        transformers.CLIPTextModel(text),
        diffusers.DDIMScheduler(
            beta_schedule="squaredcos_cap_v2",
            prediction_type="v_prediction",
            timestep_spacing="trailing",
            clip_sample=False,
            steps_offset=1,
        ),
    )


def write(
    denoiser: Denoiser,
    vae: diffusers.AutoencoderKL,
    tokenizer: transformers.CLIPTokenizer,
    out: Path,
) -> None:
    """The pipeline's folder, in half precision."""
    parts = [copy.deepcopy(net).half() for net in (vae, denoiser.text_encoder, denoiser.unet)]
    pipeline = diffusers.StableDiffusionPipeline(
        vae=parts[0],
        text_encoder=parts[1],
        tokenizer=tokenizer,
        unet=parts[2],
        scheduler=denoiser.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(out, safe_serialization=True)
    _load_in_full(out / "text_encoder" / "config.json")
    icons_tokenizer.save(tokenizer, out / "tokenizer")


def _tokens(tokenizer: transformers.CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """(N, L) token ids, padded as the pipeline pads prompts."""
    encoded = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    ids: torch.Tensor = encoded.input_ids
    return ids


def _load_in_full(config: Path) -> None:
    """Have transformers load in single precision, as diffusers does; else it keeps the file's."""
    stored = json.loads(config.read_text())
    config.write_text(json.dumps({**stored, "dtype": "float32"}, indent=2) + "\n")


def _loss(
    denoiser: Denoiser, latents: torch.Tensor, tokens: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Mean squared error of v; times are spread evenly over the batch."""
    count, times = len(latents), denoiser.scheduler.config.num_train_timesteps
    spread = torch.arange(count) / count + torch.rand(1, generator=generator)
    at = (spread % 1.0 * times).long()[torch.randperm(count, generator=generator)]
    noise = torch.randn(latents.shape, generator=generator)
    noisy = denoiser.scheduler.add_noise(latents, noise, at)
    target = denoiser.scheduler.get_velocity(latents, noise, at)
    states = denoiser.text_encoder(tokens).last_hidden_state  # (B, L, 96)
    noisy = noisy.contiguous(memory_format=torch.channels_last)
    error: torch.Tensor = denoiser.unet(noisy, at, states).sample - target
    return error.square().mean()


@torch.no_grad()
def _follow(average: Denoiser, live: Denoiser, step: int) -> None:
    """Move the average towards the live weights; early on it is shorter than ``AVERAGE``."""
    share = 1.0 - min(AVERAGE, step / (step + 10))
    torch._foreach_lerp_(average.parameters(), live.parameters(), share)


if __name__ == "__main__":
    main()
