import diffusers
import pytest
import torch

from salun_core import errors
from salun_core.diffusion import codec
from tests.salun_core.diffusion import tiny


@pytest.mark.parametrize(("channels", "size"), [(1, (1, 4, 4)), (3, (3, 4, 4)), (4, (1, 8, 8)),
                                                (12, (3, 8, 8)), (16, (1, 16, 16))])  # fmt: skip
def test_pixels_come_back_exactly(channels: int, size: tuple[int, int, int]) -> None:
    found = codec.Pixels(channels, 4)
    assert found.image_size == size
    pictures = tiny.captioned(["a"] * 3, "codec", size).pictures[:]
    pictures[0, 0, 0, :2] = torch.tensor([0, 255], dtype=torch.uint8)
    latents = found.encode(pictures)
    assert latents.shape == (3, channels, 4, 4)
    assert (latents.min().item(), latents.max().item()) == (-1.0, 1.0)
    assert torch.equal(found.decode(latents), pictures)


def test_a_fold_puts_squares_into_channels() -> None:
    """Of a 2 × 2 picture, row by row."""
    picture = torch.tensor([[[[0, 51], [102, 255]]]], dtype=torch.uint8)
    latents = codec.Pixels(4, 1).encode(picture)
    torch.testing.assert_close(latents.flatten(), torch.tensor([-1.0, -0.6, -0.2, 1.0]))


def test_channels_of_no_picture_are_refused() -> None:
    with pytest.raises(errors.InvalidConfigError, match="5 channels"):
        codec.Pixels(5, 4)


def test_latents_are_the_means_scaled_as_the_vae_says() -> None:
    vae = tiny.vae()
    found = codec.Latents(vae, 4)
    assert found.image_size == (3, 8, 8)
    pictures = tiny.captioned(["a"] * 2, "codec", (3, 8, 8)).pictures[:]
    with torch.no_grad():
        mean = vae.encode(pictures.float() / 127.5 - 1.0).latent_dist.mean
        decoded = vae.decode(mean).sample
    latents = found.encode(pictures)
    torch.testing.assert_close(latents, mean * vae.config.scaling_factor)
    expected = ((decoded.clamp(-1.0, 1.0) + 1.0) * 127.5).round()
    assert (found.decode(latents).float() - expected).abs().max() <= 1.0


def test_a_vae_that_makes_latents_of_another_size_is_refused() -> None:
    """Its decoder doubles a side, its encoder leaves it as it is."""
    vae = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(4,), decoder_block_out_channels=(4, 4),
        num_encoder_blocks=(1,), num_decoder_blocks=(1, 1), upsampling_scaling_factor=2,
    )  # fmt: skip
    with pytest.raises(errors.InvalidConfigError, match=r"latents of \(4, 8, 8\) for a picture"):
        codec.Latents(vae.eval(), 4)


def test_large_pictures_pass_the_vae_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    latents = codec.Latents(tiny.vae(), side=4)
    pictures = tiny.captioned(("a",) * 5, "large", latents.image_size).pictures[:]
    whole = latents.encode(pictures)
    drawn = latents.decode(whole)
    monkeypatch.setattr(codec, "_PIXELS_AT_ONCE", 2 * 8 * 8)
    assert torch.allclose(latents.encode(pictures), whole, atol=1e-5)
    assert (latents.decode(whole).int() - drawn.int()).abs().max() <= 1
    monkeypatch.setattr(codec, "_PIXELS_AT_ONCE", 1)
    assert latents.encode(pictures).shape == whole.shape
