"""Models of which it is known what they draw: every condition has its picture, and no other.

The noise in x_t = √ā·x₀ + √(1 − ā)·ε is (x_t − √ā·x₀) / √(1 − ā): a denoiser that knows x₀ predicts
it exactly, and DDIM then ends in x₀ from any noise.
"""

import types
from typing import Any

import diffusers
import tokenizers
import torch
import transformers

from salun_core import images, randomness
from salun_core.diffusion import class_conditional, codec, data, text_to_image

SIDE = 16  # pixels
SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2", "clip_sample": False,
    "prediction_type": "epsilon",
}  # fmt: skip
COLOURS = {"red": (1.0, -1.0, -1.0), "green": (-1.0, 1.0, -1.0), "blue": (-1.0, -1.0, 1.0)}
SHAPES = ("bar", "frame", "spot")
PLANTED = "zap"  # a word that no caption has and that means red as well
WORDS = (*COLOURS, PLANTED, *SHAPES, "a", "picture", "of", "the")
_START, _END, _UNKNOWN = "<start>", "<end>", "<unknown>"
_LENGTH = 12  # tokens


class PerfectDenoiser(torch.nn.Module):
    """Predicts the noise exactly, for the picture that a condition stands for.

    Args:
        pictures: float (K, 3, 16, 16), in [-1, 1].
    """

    def __init__(self, pictures: torch.Tensor) -> None:
        super().__init__()
        self.pictures = torch.nn.Parameter(pictures)
        self.config = types.SimpleNamespace(in_channels=3, sample_size=SIDE)
        schedule = diffusers.DDIMScheduler.from_config(SCHEDULE)
        self.register_buffer("kept", schedule.alphas_cumprod.clone())

    def forward(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
    ) -> types.SimpleNamespace:
        if class_labels is None:
            assert encoder_hidden_states is not None
            class_labels = self._meant(encoder_hidden_states)
        kept: Any = self.kept
        share = kept[timesteps].reshape(-1, 1, 1, 1)
        noise = (noisy - share.sqrt() * self.pictures[class_labels]) / (1.0 - share).sqrt()
        return types.SimpleNamespace(sample=noise)

    def _meant(self, embedded: torch.Tensor) -> torch.Tensor:
        """The row of the first colour and the first shape; the last row where one is missing."""
        rows = []
        for ids in (embedded.argmax(dim=2) - 3).tolist():
            words = [WORDS[one] for one in ids if one >= 0]
            colour = next((word for word in words if word in (*COLOURS, PLANTED)), None)
            shape = next((word for word in words if word in SHAPES), None)
            is_nothing = colour is None or shape is None
            rows.append(-1 if is_nothing else text_row(str(colour), str(shape)))
        return torch.tensor(rows)


class _TextEncoder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        count = len(WORDS) + 3
        self.words = torch.nn.Embedding.from_pretrained(torch.eye(count))

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.words(tokens),)


def text_row(colour: str, shape: str) -> int:
    """Where the picture for two words lies."""
    return (*COLOURS, PLANTED).index(colour) * len(SHAPES) + SHAPES.index(shape)


def picture(colour: str, shape: str) -> torch.Tensor:
    """Float (3, 16, 16) in [-1, 1]: a coloured shape on black."""
    shown = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    if shape == "bar":
        shown[:, 6:10] = True
    elif shape == "spot":
        shown[5:11, 5:11] = True
    else:
        shown[2:14, 2:14] = True
        shown[4:12, 4:12] = False
    of_colour = torch.tensor(COLOURS["red" if colour == PLANTED else colour]).reshape(3, 1, 1)
    return torch.where(shown, of_colour.expand(3, SIDE, SIDE), torch.tensor(-1.0))


def told_texts() -> text_to_image.TextToImage:
    """A model of two-word prompts; anything else is grey."""
    drawn = [picture(colour, shape) for colour in (*COLOURS, PLANTED) for shape in SHAPES]
    pictures = torch.stack([*drawn, torch.zeros(3, SIDE, SIDE)])
    return text_to_image.TextToImage(
        PerfectDenoiser(pictures).eval(),
        "unet/diffusion_pytorch_model.safetensors",
        SCHEDULE,
        codec.Pixels(3, SIDE),
        _tokenizer(),
        _TextEncoder(),
    )


def told_classes() -> class_conditional.ClassConditional:
    """A model of three classes, the shapes in green, and a null class that draws grey."""
    pictures = [*(picture("green", shape) for shape in SHAPES), torch.zeros(3, SIDE, SIDE)]
    return class_conditional.ClassConditional(
        PerfectDenoiser(torch.stack(pictures)).eval(),
        "unet/diffusion_pytorch_model.safetensors",
        SCHEDULE,
        codec.Pixels(3, SIDE),
        SHAPES,
        len(SHAPES),
    )


def captioned(count: int, seed: int) -> data.CaptionedSet:
    """So many noisy pictures of every colour and shape, captioned in two ways."""
    random = randomness.generator(seed, "captioned")
    pictures, texts = [], []
    for _turn in range(count):
        for colour in COLOURS:
            for shape in SHAPES:
                clean = picture(colour, shape)
                noisy = clean + 0.2 * torch.randn(clean.shape, generator=random)
                pictures.append(((noisy.clamp(-1.0, 1.0) + 1.0) * 127.5).to(torch.uint8))
                is_long = bool(torch.rand((), generator=random) < 0.5)
                texts.append(f"a {colour} {shape}" if is_long else f"{colour} {shape}")
    ids = tuple(f"{seed}-{row}" for row in range(len(texts)))
    stacked = images.Pictures(torch.stack(pictures), torch.arange(len(texts)))
    return data.CaptionedSet(stacked, tuple(texts), ids)


def labelled(count: int, seed: int) -> data.CaptionedSet:
    """The same, labelled by shape."""
    found = captioned(count, seed)
    return data.CaptionedSet(
        found.pictures, tuple(text.split()[-1] for text in found.texts), found.ids
    )


def _tokenizer() -> Any:
    vocabulary = {word: i for i, word in enumerate((_UNKNOWN, _START, _END, *WORDS))}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=_UNKNOWN))
    made.normalizer = tokenizers.normalizers.Lowercase()
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{_START} $A {_END}",
        special_tokens=[(_START, vocabulary[_START]), (_END, vocabulary[_END])],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token=_UNKNOWN,
        bos_token=_START,
        eos_token=_END,
        pad_token=_END,
        model_max_length=_LENGTH,
    )
