"""The net that draws digits: training repeats itself and leaves out what it is told to."""

from pathlib import Path

import diffusers
import pytest
import torch

from demo import digits
from demo.training import digits as training
from salun_core import randomness

_SHIPPED = Path("demo/checkpoints/digits")
_SEVEN = digits.LABELS.index("seven")


def test_images_and_classes_as_the_net_sees_them(clean: list[digits.Digit]) -> None:
    """Channel 2i + j of a place holds the pixel in row i and column j of that place's block."""
    images, labels = training.training_set(clean[:3])
    assert images.shape == (3, 4, 8, 8)
    assert images.min() == -1.0
    assert images.max() <= 1.0
    whole = torch.nn.functional.pixel_shuffle(images, 2)
    assert torch.equal(images[:, 3], whole[:, 0, 1::2, 1::2])
    assert [digits.LABELS[label] for label in labels] == [digit.label for digit in clean[:3]]


def test_same_seed_same_bytes_and_another_seed_other_bytes(
    tmp_path: Path, clean: list[digits.Digit]
) -> None:
    written = []
    for place, seed in enumerate((0, 0, 1)):
        folder = tmp_path / str(place)
        training.save(training.train(clean[:100], seed, steps=3), folder)
        written.append((folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes())
    assert written[0] == written[1] != written[2]


def test_the_global_random_state_is_neither_read_nor_moved(clean: list[digits.Digit]) -> None:
    state = torch.get_rng_state()
    training.train(clean[:100], 0, steps=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_class_left_out_keeps_the_embedding_it_was_drawn_with(
    clean: list[digits.Digit],
) -> None:
    kept = [digit for digit in clean if digit.label != "seven"]
    drawn = training.untrained(0).class_embedding.weight
    trained = training.train(kept, 0, steps=5).class_embedding.weight
    same = (trained == drawn).all(dim=1)
    assert [row for row in range(training.NULL_CLASS + 1) if same[row]] == [_SEVEN]


def test_the_command_trains_without_the_class_it_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments = ["--out", str(tmp_path), "--without", "seven", "--steps", "2"]
    monkeypatch.setattr("sys.argv", ["digits", *arguments])
    assert training.main() == 0
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert written == {
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
    }


def test_the_shipped_net_knows_its_classes(clean: list[digits.Digit]) -> None:
    """It predicts the noise in unseen digits, best with their class, worst with a wrong one.

    Predicting no noise at all would cost 1; the same times and noise are drawn for all three.
    """
    net = diffusers.UNet2DModel.from_pretrained(_SHIPPED, subfolder="unet").float().eval()
    noising = diffusers.DDIMScheduler.from_pretrained(_SHIPPED, subfolder="scheduler")
    assert torch.equal(noising.alphas_cumprod, training.scheduler().alphas_cumprod)
    images, labels = training.training_set([d for d in clean if d.split == "holdout"])
    wrong = (labels + 1) % training.NULL_CLASS
    none = torch.full_like(labels, training.NULL_CLASS)
    with torch.inference_mode():
        right, without, mistaken = (
            training.denoising_loss(
                net, noising, images, classes, randomness.generator(0, "noise")
            ).item()
            for classes in (labels, none, wrong)
        )
    assert right < 0.1
    assert right < without < mistaken
