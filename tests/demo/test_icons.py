"""The icons: captions, pack, trained folder, and training itself, on a short run."""

import collections
import itertools
from pathlib import Path

import diffusers
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from demo.training import captions, icons, icons_data, icons_pack, icons_tokenizer, icons_vae

CHECKPOINT = Path(icons.__file__).parents[1] / "checkpoints" / "icons"
PAIRS = [
    *itertools.product(captions.STYLES, captions.OBJECTS),
    *itertools.product(captions.COLOURS, captions.DIGITS),
]


@pytest.mark.parametrize("place", range(3))
def test_every_sentence_says_what_it_asks_for(place: int) -> None:
    asked = [captions.attributes(captions.emoji(*pair, place)) for pair in PAIRS[:64]]
    asked += [captions.attributes(captions.digit(*pair, place)) for pair in PAIRS[64:]]
    assert asked == PAIRS


def test_the_pack_holds_every_pair_and_no_drawing_in_two_splits() -> None:
    rows = pq.read_table(icons_data.PACK, columns=["sample_id", "split", "text"]).to_pylist()
    train = collections.Counter(
        captions.attributes(row["text"]) for row in rows if row["split"] == "train"
    )
    assert set(train) == set(PAIRS)
    assert min(train.values()) >= 3
    drawings: dict[str, set[str]] = collections.defaultdict(set)
    for row in rows:
        drawings[row["sample_id"].split("_", 1)[1]].add(row["split"])
    assert all(len(splits) == 1 for splits in drawings.values())


def test_pairs_are_drawn_evenly() -> None:
    """124 pairs share 12,400 draws: 100 each, give or take five standard deviations of 10."""
    pack = icons_pack.read(icons_data.PACK, "train")
    rows = pack.draw(12_400, torch.Generator().manual_seed(0)).tolist()
    drawn = collections.Counter(captions.attributes(pack.texts[row]) for row in rows)
    assert len(drawn) == len(PAIRS)
    assert 50 <= min(drawn.values()) <= max(drawn.values()) <= 150


def test_the_tokenizer_has_the_words_and_spells_the_rest(tmp_path: Path) -> None:
    built = icons_tokenizer.train(icons_pack.read(icons_data.PACK, "train").texts)
    words = [word for name in itertools.chain(*PAIRS) for word in name.split()]
    assert all(len(built(word).input_ids) == 3 for word in words)  # between start and end
    icons_tokenizer.save(built, tmp_path)
    read = type(built).from_pretrained(tmp_path)
    strange = read("zebras, naïve: 12 €").input_ids
    assert read.decode(strange, skip_special_tokens=True).replace(" ", "") == "zebras,naïve:12€"
    assert strange == built("zebras, naïve: 12 €").input_ids


def test_the_same_seed_writes_the_same_folder_and_it_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(icons_vae, "STEPS", 4)
    monkeypatch.setattr(icons_vae, "WARM_UP", 2)
    pack = icons_pack.read(icons_data.PACK, "holdout")
    said: list[str] = []
    for name in ("one", "two"):
        vae = icons_vae.train(pack, 0, said.append)
        icons.train(pack, vae, tmp_path / name, steps=2, seed=0, report=said.append)
    for file in ("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert said[-1].startswith("denoiser     2 of 2")
    one = _pipeline(tmp_path / "one")
    assert _sample(one, ["a red seven"], 2).shape == (1, 32, 32, 3)
    icons.train(
        pack, vae, tmp_path / "on", start=tmp_path / "one", steps=1, seed=1, report=said.append
    )
    went_on = _pipeline(tmp_path / "on").unet.state_dict()
    assert all(torch.allclose(went_on[n], t, atol=1e-3) for n, t in one.unet.state_dict().items())


def test_the_checkpoint_paints_digits_in_the_colour_that_is_asked_for() -> None:
    """The mean ink of a digit is nearest to its own colour; by chance one in six would be."""
    asked = [
        captions.digit(colour, "three", place) for colour in captions.COLOURS for place in (0, 1)
    ]
    pictures = _sample(_pipeline(CHECKPOINT), asked, icons.SAMPLING_STEPS)
    inks = np.array([icons_data.COLOURS[colour] for colour in captions.COLOURS]) / 255.0
    darkest = [picture[picture.min(-1) < 0.4].mean(0) for picture in pictures]
    nearest = [captions.COLOURS[np.square(inks - ink).sum(1).argmin()] for ink in darkest]
    right = sum(a == b for a, b in zip(nearest, np.repeat(captions.COLOURS, 2), strict=True))
    assert right >= 11


def test_the_checkpoint_is_small_and_holds_no_pickle() -> None:
    files = [file for file in CHECKPOINT.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 9e6
    assert {file.suffix for file in files} == {".json", ".txt", ".safetensors"}


def _pipeline(folder: Path) -> diffusers.StableDiffusionPipeline:
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _sample(
    pipeline: diffusers.StableDiffusionPipeline, prompts: list[str], steps: int
) -> np.ndarray:
    """(N, 32, 32, 3), 0 to 1."""
    drawn = pipeline(
        prompts,
        num_inference_steps=steps,
        guidance_scale=icons.GUIDANCE,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    )
    pictures: np.ndarray = drawn.images
    return pictures
