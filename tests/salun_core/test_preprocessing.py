import io
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import transforms_factory

from salun_core import errors, preprocessing, specs


def _picture(width: int = 50, height: int = 40, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def _encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_the_net_sees_what_timm_would_show_it(kind: str, crop_mode: specs.CropMode) -> None:
    config = specs.PretrainedConfig(
        input_size=(3, 24, 32), crop_pct=0.8, interpolation="bilinear", crop_mode=crop_mode
    )
    ours = preprocessing.Preprocessing(config)
    content = _encoded(_picture(), kind)
    seen = ours.normalise(ours.decode(content, "a").unsqueeze(0))[0]
    theirs = transforms_factory.create_transform(
        input_size=(3, 24, 32), crop_pct=0.8, interpolation="bilinear", crop_mode=crop_mode
    )
    expected = theirs(Image.open(io.BytesIO(content)).convert("RGB"))
    assert isinstance(expected, torch.Tensor)
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "LA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_follow_the_net(mode: str, channels: int) -> None:
    config = specs.PretrainedConfig(input_size=(channels, 8, 8), mean=(0.5,), std=(0.5,))
    decoded = preprocessing.Preprocessing(config).decode(_encoded(_picture(mode=mode)), "a")
    assert decoded.shape == (channels, 8, 8)
    assert decoded.dtype == torch.uint8


def test_a_grey_picture_of_the_right_size_passes_untouched() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    config = specs.PretrainedConfig(input_size=(1, 8, 8), mean=(0.5,), std=(0.5,), crop_pct=1.0)
    decoded = preprocessing.Preprocessing(config).decode(_encoded(Image.fromarray(pixels)), "a")
    assert np.array_equal(decoded[0].numpy(), pixels)


CONFIG = specs.PretrainedConfig(input_size=(1, 8, 8), mean=(0.5,), std=(0.5,))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture at all",
        _encoded(_picture())[:200],
        _encoded(_picture(), "JPEG")[:300],
        _encoded(_picture(), "WEBP")[:100],
        _encoded(_picture(mode="L"), "BMP"),
    ],
)
def test_broken_bytes_name_the_sample(content: bytes) -> None:
    with pytest.raises(errors.InvalidDataError, match=r"sample 'img-7': got \d+ bytes"):
        preprocessing.Preprocessing(CONFIG).image_set([("img-7", 0, content)])


def test_numbers_of_colours_need_a_palette() -> None:
    """Pillow opens such a file, and fails where it shall be turned into colours."""
    whole = _encoded(_picture(mode="P"))
    start = whole.index(b"PLTE") - 4
    length = int.from_bytes(whole[start : start + 4], "big") + 12
    transparent = b"\0\0\0\1tRNS\0" + zlib.crc32(b"tRNS\0").to_bytes(4, "big")
    cut = whole[:start] + transparent + whole[start + length :]
    with pytest.raises(errors.InvalidDataError, match="sample 'odd': got"):
        preprocessing.Preprocessing(CONFIG).decode(cut, "odd")


def test_sixteen_bits_are_refused_not_clipped() -> None:
    deep = Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16))
    with pytest.raises(errors.InvalidDataError, match="sample 'deep': got a picture of mode I;16"):
        preprocessing.Preprocessing(CONFIG).decode(_encoded(deep), "deep")


def test_a_picture_that_unpacks_to_gigabytes_is_refused() -> None:
    bomb = _encoded(Image.new("1", (12_000, 12_000)))
    assert len(bomb) < 100_000
    with pytest.raises(errors.InvalidDataError, match="sample 'bomb'"):
        preprocessing.Preprocessing(CONFIG).decode(bomb, "bomb")


def test_a_set_keeps_order_and_labels() -> None:
    rows = [("b", 2, _encoded(_picture())), ("a", 1, _encoded(_picture()))]
    made = preprocessing.Preprocessing(CONFIG).image_set(iter(rows))
    assert made.ids == ("b", "a")
    assert made.labels.tolist() == [2, 1]
    assert len(preprocessing.Preprocessing(CONFIG).image_set([])) == 0
