import json
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch

from salun_core import errors, generation_specs, weights
from salun_core.diffusion import class_conditional, folders, text_to_image
from tests.salun_core.diffusion import tiny

UNET = "unet/diffusion_pytorch_model.safetensors"
CLASSES: generation_specs.GenerativeFamily = "class_conditional_diffusion"


@pytest.mark.parametrize(
    ("make", "size"), [(tiny.class_folder, (1, 8, 8)), (tiny.dit_folder, (3, 8, 8))]
)
def test_class_conditional_folders_open(
    tmp_path: Path, make: Callable[[Path], Path], size: tuple[int, int, int]
) -> None:
    opened = folders.open_generator(make(tmp_path), CLASSES, tiny.CLASSES)
    assert isinstance(opened, class_conditional.ClassConditional)
    assert opened.image_size == size
    assert opened.classes == tiny.CLASSES
    assert opened.null_condition().tolist() == [3]
    assert not opened.denoiser.training


@pytest.mark.parametrize(
    ("make", "family", "pipeline"),
    [
        (tiny.class_pipeline, CLASSES, "DDPMPipeline"),
        (tiny.dit_folder, CLASSES, "DiTPipeline"),
        (tiny.text_folder, "text_to_image", "StableDiffusionPipeline"),
    ],
)
def test_what_opens_here_opens_with_stock_diffusers(
    tmp_path: Path,
    make: Callable[[Path], Path],
    family: generation_specs.GenerativeFamily,
    pipeline: str,
) -> None:
    folder = make(tmp_path)
    opened = folders.open_generator(folder, family, tiny.CLASSES)
    stock = diffusers.DiffusionPipeline.from_pretrained(
        folder, use_safetensors=True, local_files_only=True
    )
    assert type(stock).__name__ == pipeline
    net = stock.components["transformer" if pipeline == "DiTPipeline" else "unet"]
    state = opened.denoiser.state_dict()
    assert net.state_dict().keys() == state.keys()
    assert all(torch.equal(state[name], one) for name, one in net.state_dict().items())


def test_a_published_dit_opens(tmp_path: Path) -> None:
    """Those were saved as ``Transformer2DModel``, with settings of its other forms."""
    path = tiny.dit_folder(tmp_path) / "transformer/config.json"
    older = {"_class_name": "Transformer2DModel", "cross_attention_dim": None,
             "double_self_attention": False, "num_vector_embeds": None,
             "only_cross_attention": False, "use_linear_projection": False}  # fmt: skip
    path.write_text(json.dumps({**json.loads(path.read_text()), **older}))
    opened = folders.open_generator(tmp_path, CLASSES, tiny.CLASSES)
    assert type(opened.denoiser).__name__ == "DiTTransformer2DModel"


def test_a_text_to_image_folder_opens(tmp_path: Path) -> None:
    opened = folders.open_generator(tiny.text_folder(tmp_path), "text_to_image")
    assert isinstance(opened, text_to_image.TextToImage)
    assert opened.image_size == (3, 8, 8)
    texts = ["a red circle", "a blue cross", "a red circle"]
    found = opened.conditions(texts)
    assert found.shape == (3, tiny.LENGTH, 12)
    assert torch.equal(found[0], found[2])
    torch.testing.assert_close(found, tiny.by_text().conditions(texts))


def test_half_precision_files_open_in_single(tmp_path: Path) -> None:
    folder = tiny.class_folder(tmp_path)
    halves = {name: tensor.half() for name, tensor in weights.read(folder / UNET).items()}
    weights.write(folder / UNET, halves)
    opened = folders.open_generator(folder, CLASSES, tiny.CLASSES)
    state = opened.denoiser.state_dict()
    assert all(torch.equal(state[name], half.float()) for name, half in halves.items())


def test_labels_without_a_null_class(tmp_path: Path) -> None:
    opened = folders.open_generator(tiny.class_folder(tmp_path), CLASSES, (*tiny.CLASSES, "star"))
    with pytest.raises(errors.InvalidDataError, match="without a null class"):
        opened.null_condition()


def test_a_text_encoder_opens_in_single_whatever_its_configuration_says(tmp_path: Path) -> None:
    """As stock diffusers opens it; rounded to half precision it would be off by a thousandth."""
    folder = tiny.text_folder(tmp_path)
    tiny.change(folder / "text_encoder/config.json", dtype="float16")
    found = folders.open_generator(folder, "text_to_image").conditions(["a red circle"])
    torch.testing.assert_close(found, tiny.by_text().conditions(["a red circle"]))


def _reshape(folder: Path) -> None:
    tensors = weights.read(folder / UNET)
    weights.write(folder / UNET, {**tensors, "conv_in.bias": torch.zeros(9)})


def _drop(folder: Path) -> None:
    tensors = weights.read(folder / UNET)
    del tensors["conv_in.bias"]
    weights.write(folder / UNET, tensors)


def _spoil(folder: Path) -> None:
    tensors = weights.read(folder / UNET)
    tensors["conv_in.bias"][0] = float("nan")
    weights.write(folder / UNET, tensors)


def _pickle(folder: Path) -> None:
    (folder / UNET).write_bytes(b"PK\x03\x04" + bytes(64))


def _cut(folder: Path) -> None:
    (folder / UNET).write_bytes((folder / UNET).read_bytes()[:-100])


def _no_json(folder: Path) -> None:
    (folder / "unet/config.json").write_text("{")


def _configure(**changes: object) -> Callable[[Path], None]:
    return lambda folder: tiny.change(folder / "unet/config.json", **changes)


@pytest.mark.parametrize(
    ("spoil", "error", "named"),
    [
        (_reshape, errors.ArchitectureMismatchError, r"conv_in.bias: got \(9,\), expected \(8,\)"),
        (_drop, errors.ArchitectureMismatchError, "conv_in.bias: got nothing"),
        (_spoil, errors.ArchitectureMismatchError, "conv_in.bias holds NaN"),
        (_pickle, errors.UnsafeArtifactError, "pickle or zip"),
        (_cut, errors.UnsafeArtifactError, "bytes of tensors"),
        (_no_json, errors.InvalidConfigError, "expected JSON"),
        (_configure(norm_num_groups=5), errors.InvalidConfigError, "cannot be built"),
        (_configure(sample_size=[4, 8]), errors.InvalidConfigError, "sample_size"),
    ],
)
def test_broken_folders_are_refused(
    tmp_path: Path,
    spoil: Callable[[Path], None],
    error: type[errors.SalunError],
    named: str,
) -> None:
    folder = tiny.class_folder(tmp_path)
    spoil(folder)
    with pytest.raises(error, match=named):
        folders.open_generator(folder, CLASSES, tiny.CLASSES)


@pytest.mark.parametrize(
    ("path", "changes", "error", "named"),
    [
        ("vae/config.json", {"scaling_factor": None}, errors.InvalidConfigError, "scaling_factor"),
        ("vae/config.json", {"scaling_factor": 0}, errors.InvalidConfigError, "scaling_factor 0"),
        ("vae/config.json", {"shift_factor": "x"}, errors.InvalidConfigError, "shift_factor x"),
        ("vae/config.json", {"norm_num_groups": 3}, errors.InvalidConfigError, "vae/: cannot be"),
        (  # tensors of 150 GB, which nobody may ask for
            "vae/config.json", {"block_out_channels": [65536, 65536]},
            errors.ArchitectureMismatchError, r"vae/: tensors .* \(65536,",
        ),
        (
            "unet/config.json", {"sample_size": 600}, errors.InvalidConfigError,
            "unet/config.json: got sample_size 600, which makes pictures of 1200 pixels",
        ),
        (
            "unet/config.json", {"attention_head_dim": 0}, errors.InvalidConfigError,
            "unet/config.json: UNet2DConditionModel cannot be built",
        ),
        (
            "text_encoder/config.json", {"vocab_size": "x"}, errors.InvalidConfigError,
            "text_encoder/: cannot be opened",
        ),
        (
            "text_encoder/config.json", {"vocab_size": 2**30}, errors.ArchitectureMismatchError,
            "text_encoder/: tensors missing",
        ),
        (
            "tokenizer/tokenizer_config.json", {"model_max_length": -3},
            errors.InvalidConfigError, "got texts of -3 tokens",
        ),
        (
            "tokenizer/tokenizer_config.json", {"model_max_length": "z"},
            errors.InvalidConfigError, "tokenizer/: cannot be opened",
        ),
        (
            "tokenizer/tokenizer_config.json", {"pad_token": None}, errors.InvalidConfigError,
            "tokenizer/: gives nothing that text_encoder/ can be told",
        ),
        (
            "tokenizer/vocab.json", {"circle</w>": 100_000}, errors.InvalidConfigError,
            "tokenizer/vocab.json: got token 100000, the text encoder knows",
        ),
    ],
)  # fmt: skip
def test_broken_parts_of_a_text_model_are_named(
    tmp_path: Path,
    path: str,
    changes: dict[str, object],
    error: type[errors.SalunError],
    named: str,
) -> None:
    folder = tiny.text_folder(tmp_path)
    (folder / "tokenizer/tokenizer.json").unlink()  # it would be read in place of the vocabulary
    tiny.change(folder / path, **changes)
    with pytest.raises(error, match=named):
        folders.open_generator(folder, "text_to_image")


def test_a_vocabulary_that_is_none(tmp_path: Path) -> None:
    """The library raises bare exceptions of it."""
    folder = tiny.text_folder(tmp_path)
    (folder / "tokenizer/tokenizer.json").unlink()
    (folder / "tokenizer/vocab.json").write_text("[1, 2]")
    with pytest.raises(errors.InvalidConfigError, match="tokenizer/: cannot be opened"):
        folders.open_generator(folder, "text_to_image")


def test_memory_that_runs_out_is_still_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the cause, whatever part was being opened: it is no fault of the folder."""
    folder = tiny.text_folder(tmp_path)
    short = torch.OutOfMemoryError("CUDA out of memory")

    def load(*_: object, **__: object) -> object:
        raise short

    monkeypatch.setattr(diffusers.AutoencoderKL, "from_pretrained", load)
    with pytest.raises(errors.InvalidConfigError, match="vae/") as caught:
        folders.open_generator(folder, "text_to_image")
    assert caught.value.__cause__ is short


@pytest.mark.parametrize("labels", [(), tuple("abcde")])
def test_labels_that_the_net_has_no_embeddings_for(tmp_path: Path, labels: tuple[str, ...]) -> None:
    with pytest.raises(errors.InvalidConfigError, match="class embeddings"):
        folders.open_generator(tiny.class_folder(tmp_path), CLASSES, labels)
