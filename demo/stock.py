"""What a serving system does: pull with stock diffusers from ``HF_ENDPOINT``, and draw.

Run as a process of its own by the demo, with ``HF_ENDPOINT`` and ``HF_TOKEN`` in its environment
and nothing of ours imported. ``python -m demo.stock MODEL PROMPTS.json OUT.npy``: pictures are
uint8 (N, H, W, channels). A list of numbers as prompts stands for classes.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

SEED = 5
STEPS = 25
BATCH = 64
PULLED: dict[str, Any] = {"revision": "production", "use_safetensors": True}


def main() -> int:
    """Pull, draw, write."""
    parser = argparse.ArgumentParser(prog="python -m demo.stock", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("prompts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--guidance", type=float, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prompts = json.loads(arguments.prompts.read_text())
    draw = classes if isinstance(prompts[0], int) else texts
    parts = [prompts[start : start + BATCH] for start in range(0, len(prompts), BATCH)]
    np.save(arguments.out, np.concatenate(list(draw(arguments.model, parts, arguments.guidance))))
    return 0


def texts(model: str, parts: list[list[str]], guidance: float) -> Any:  # noqa: ANN401
    """Pictures for texts, by the pipeline that everybody uses."""
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(model, **PULLED).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    random = torch.Generator().manual_seed(SEED)
    for prompts in parts:
        drawn = pipeline(
            prompts,
            num_inference_steps=STEPS,
            guidance_scale=guidance,
            generator=random,
            output_type="np",
        )
        yield (drawn.images * 255).round().astype(np.uint8)


@torch.no_grad()
def classes(model: str, parts: list[list[int]], guidance: float) -> Any:  # noqa: ANN401
    """Pictures for class numbers, from the U-Net and its scheduler."""
    net = diffusers.UNet2DModel.from_pretrained(model, subfolder="unet", **PULLED).float().eval()
    scheduler = diffusers.DDIMScheduler.from_pretrained(
        model, subfolder="scheduler", revision="production"
    )
    scheduler.set_timesteps(STEPS)
    random = torch.Generator().manual_seed(SEED)
    for numbers in parts:
        wanted = torch.tensor(numbers)
        none = torch.full_like(wanted, net.config.num_class_embeds - 1)
        size = net.config.sample_size
        now = torch.randn(len(numbers), net.config.in_channels, size, size, generator=random)
        for timestep in scheduler.timesteps:
            both = net(torch.cat([now, now]), timestep, torch.cat([none, wanted])).sample
            without, conditional = both.chunk(2)
            said = without + guidance * (conditional - without)
            now = scheduler.step(said, timestep, now, use_clipped_model_output=True).prev_sample
        pixels = torch.nn.functional.pixel_shuffle(now, 2).clamp(-1.0, 1.0)
        yield ((pixels + 1.0) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


if __name__ == "__main__":
    raise SystemExit(main())
