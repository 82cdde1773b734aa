"""Diffusion models of random weights, of all three layouts, small enough to run in milliseconds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import tokenizers
import torch
import transformers

from salun_core import generation_specs, images, randomness, specs
from salun_core.diffusion import class_conditional, codec, data, tasks, text_to_image
from salun_core.diffusion.unlearn import contract

CLASSES = ("circle", "square", "cross")
WORDS = ("a", "of", "picture", "red", "blue", "green", *CLASSES)
LENGTH = 8  # tokens of a text
SCHEDULE = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 100,
    "beta_schedule": "squaredcos_cap_v2",
}
UNET: dict[str, Any] = {
    "sample_size": 4,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
CLASS_UNET = {
    **UNET,
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "num_class_embeds": len(CLASSES) + 1,
    "add_attention": False,
}
TEXT_UNET = {
    **UNET,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 12,
    "attention_head_dim": 4,
}
DIT = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 8,  # with a variance of its own
    "num_layers": 1,
    "sample_size": 4,
    "patch_size": 2,
    "norm_num_groups": 4,
    "num_embeds_ada_norm": len(CLASSES),
}
VAE = {
    "block_out_channels": (4, 4),
    "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"),
    "up_block_types": ("UpDecoderBlock2D", "UpDecoderBlock2D"),
    "latent_channels": 4,
    "norm_num_groups": 2,
    "sample_size": 8,
}


def class_unet(seed: int = 0) -> Any:
    """A net that is told one of four classes, the last of which says nothing."""
    with randomness.seeded(seed):
        return diffusers.UNet2DModel(**CLASS_UNET).eval()


def by_class(seed: int = 0) -> class_conditional.ClassConditional:
    """A model of grey 8 × 8 pictures, folded."""
    return class_conditional.ClassConditional(
        denoiser=class_unet(seed),
        weights_file="unet/diffusion_pytorch_model.safetensors",
        scheduler_config=dict(SCHEDULE),
        codec=codec.Pixels(4, 4),
        classes=CLASSES,
        null_class=len(CLASSES),
    )


def text_unet(seed: int = 0) -> Any:
    """A net with two cross-attention layers."""
    with randomness.seeded(seed):
        return diffusers.UNet2DConditionModel(**TEXT_UNET).eval()


def tokenizer() -> Any:
    """A CLIP tokenizer: each of the words is one token, others are spelt."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merge = (parts[0], parts[1])
            parts = ["".join(merge), *parts[2:]]
            if merge not in merges:
                merges.append(merge)
                pieces.append(parts[0])
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[special] = len(vocabulary)
    return transformers.CLIPTokenizer(
        vocab=vocabulary, merges=merges, model_max_length=LENGTH, padding_side="right"
    )


def text_encoder(vocabulary: int, seed: int = 0) -> Any:
    """One layer of CLIP, 12 wide."""
    config = transformers.CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=12,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    with randomness.seeded(seed, "text"):
        return transformers.CLIPTextModel(config).eval()


def by_text(seed: int = 0) -> text_to_image.TextToImage:
    """A model of grey 8 × 8 pictures, folded, without a VAE."""
    words = tokenizer()
    return text_to_image.TextToImage(
        denoiser=text_unet(seed),
        weights_file="unet/diffusion_pytorch_model.safetensors",
        scheduler_config=dict(SCHEDULE),
        codec=codec.Pixels(4, 4),
        tokenizer=words,
        text_encoder=text_encoder(len(words), seed),
    )


def vae(seed: int = 0) -> Any:
    """RGB pictures of 8 × 8 to 4 channels of 4 × 4."""
    with randomness.seeded(seed, "vae"):
        return diffusers.AutoencoderKL(**VAE).eval()


def captioned(
    texts: Sequence[str], purpose: str, size: tuple[int, int, int] = (1, 8, 8)
) -> data.CaptionedSet:
    """A random picture for each text."""
    random = randomness.generator(0, purpose)
    pictures = torch.randint(0, 256, (len(texts), *size), generator=random, dtype=torch.uint8)
    return data.CaptionedSet(
        images.Pictures(pictures, torch.arange(len(texts))),
        tuple(texts),
        tuple(f"{purpose}-{i}" for i in range(len(texts))),
    )


def class_data(generator: class_conditional.ClassConditional) -> contract.GenerationData:
    """Circles are forgotten, squares and crosses are kept."""
    return tasks.of_class(
        generator,
        captioned(["circle"] * 12, "forget"),
        captioned(["square", "cross"] * 12, "retain"),
    )


CIRCLES = specs.ConceptTarget(kind="concept", concept="circle", replacement="square")


def concept_data(generator: text_to_image.TextToImage) -> contract.GenerationData:
    """Circles of two colours become squares; squares and crosses are kept."""
    return tasks.of_concepts(
        generator,
        captioned(["a red circle", "picture of a blue circle"] * 6, "forget"),
        captioned(["a red square", "a blue cross", "a green cross"] * 8, "retain"),
        [CIRCLES],
        generation_specs.Sampling(steps=2, guidance_scale=1.0),
    )


def spec(**fields: Any) -> generation_specs.GenerationSpec:
    """A short recipe; fields that are not given are ours."""
    short = {"steps": 4, "forget_batch_size": 64, "retain_batch_size": 64, "learning_rate": 1e-3}
    return generation_specs.GenerationSpec.model_validate({**short, **fields})


def class_folder(folder: Path) -> Path:
    """A ``UNet2DModel`` that is told classes, on folded pixels."""
    class_unet().save_pretrained(folder / "unet")
    _write(folder / "scheduler/scheduler_config.json", SCHEDULE)
    return folder


def class_pipeline(folder: Path) -> Path:
    """The same net and schedule as ``DDPMPipeline`` saves them."""
    scheduler = diffusers.DDPMScheduler.from_config(SCHEDULE)
    diffusers.DDPMPipeline(class_unet(), scheduler).save_pretrained(folder)
    return folder


def dit_folder(folder: Path) -> Path:
    """What ``DiTPipeline`` saves, and its classes; the first has a synonym."""
    with randomness.seeded(0):
        transformer = diffusers.DiTTransformer2DModel(**DIT)
    scheduler = diffusers.DDIMScheduler.from_config(SCHEDULE)
    diffusers.DiTPipeline(transformer, vae(), scheduler).save_pretrained(folder)
    names = {"0": "disc, circle", "1": "square", "2": "cross"}
    change(folder / "model_index.json", id2label=names)
    return folder


def text_folder(folder: Path) -> Path:
    """What ``StableDiffusionPipeline`` saves, without a safety checker."""
    words = tokenizer()
    scheduler = {**SCHEDULE, "skip_prk_steps": True, "steps_offset": 1}
    diffusers.StableDiffusionPipeline(
        unet=text_unet(),
        vae=vae(),
        text_encoder=text_encoder(len(words)),
        tokenizer=words,
        scheduler=diffusers.PNDMScheduler.from_config(scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    words.backend_tokenizer.model.save(str(folder / "tokenizer"))
    return folder


def change(path: Path, **changes: object) -> None:
    """Give a JSON object in a file other values at some keys."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
