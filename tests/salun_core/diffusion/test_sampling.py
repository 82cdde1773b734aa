from pathlib import Path

import diffusers
import pytest
import torch

from salun_core import errors, generation_specs, randomness
from salun_core.diffusion import denoising, folders, sampling
from tests.salun_core.diffusion import tiny

THREE = generation_specs.Sampling(steps=3, guidance_scale=3.0)


def test_a_picture_does_not_depend_on_what_else_is_drawn() -> None:
    """Up to one grey level, since a batch's other samples may move the last bits."""
    generator = tiny.by_class()
    some = sampling.draw(generator, torch.tensor([0, 1, 2]), THREE, seed=5)
    other = sampling.draw(generator, torch.tensor([0, 2, 2]), THREE, seed=5)
    longer = sampling.draw(generator, torch.tensor([0, 1, 2, 1, 0]), THREE, seed=5)
    difference = (some.int() - other.int()).abs().amax((1, 2, 3))
    assert difference[[0, 2]].max() <= 1
    assert difference[1] > 1
    assert (some.int() - longer[:3].int()).abs().max() <= 1
    assert torch.equal(some, sampling.draw(generator, torch.tensor([0, 1, 2]), THREE, seed=5))


def test_batches_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = tiny.by_class()
    classes = torch.tensor([0, 1, 2, 0, 1])
    whole = sampling.draw(generator, classes, THREE, seed=1)
    monkeypatch.setattr(sampling, "BATCH_SIZE", 2)
    steps: list[tuple[int, int]] = []
    parts = sampling.draw(
        generator, classes, THREE, seed=1, report=lambda *step: steps.append(step)
    )
    assert (whole.int() - parts.int()).abs().max() <= 1
    assert steps == [(step, 9) for step in range(1, 10)]


def test_pictures_are_those_of_diffusers_own_pipeline(tmp_path: Path) -> None:
    generator = folders.open_generator(tiny.text_folder(tmp_path), "text_to_image")
    scheduler = denoising.ddim(generator.scheduler_config)
    pipeline = diffusers.StableDiffusionPipeline(
        vae=tiny.vae(),
        text_encoder=generator.text_encoder,  # type: ignore[attr-defined]
        tokenizer=generator.tokenizer,  # type: ignore[attr-defined]
        unet=generator.denoiser,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    texts = ["a red circle", "a blue cross"]
    noise = torch.randn(2, 4, 4, 4, generator=randomness.generator(3, "sampling"))
    theirs = pipeline(
        texts, num_inference_steps=3, guidance_scale=3.0, latents=noise, output_type="pt"
    ).images
    ours = sampling.draw(generator, generator.conditions(texts), THREE, seed=3)
    assert (ours.float() - theirs * 255.0).abs().max() <= 1.0


@pytest.mark.parametrize(
    ("config", "clips"),
    [
        ({"_class_name": "PNDMScheduler"}, False),
        ({"_class_name": "EulerDiscreteScheduler"}, False),
        ({"_class_name": "EulerDiscreteScheduler", "clip_sample": True}, True),
        ({"_class_name": "DDPMScheduler"}, True),
        ({"_class_name": "DDIMScheduler", "clip_sample": False}, False),
    ],
)
def test_only_schedulers_that_clip_clip(config: dict[str, object], clips: bool) -> None:
    assert denoising.ddim(config).config.clip_sample is clips


def test_guidance_without_a_null_class_is_refused() -> None:
    generator = tiny.by_class()
    generator.null_class = None
    with pytest.raises(errors.InvalidDataError, match="null class"):
        sampling.draw(generator, torch.tensor([0]), THREE, seed=0)


def test_large_pictures_are_drawn_fewer_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many positions of latents as 64 nets of side 32, or 16 of SD 1.x, have."""
    generator = tiny.by_class()
    for side, each in ((32, 64), (64, 16), (512, 1)):
        monkeypatch.setattr(type(generator), "latent_size", (4, side, side))
        assert sampling.batches(generator, 200) == range(0, 200, each)
