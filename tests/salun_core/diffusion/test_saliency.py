import pytest
import torch

from salun_core import errors, generation_specs, randomness, weights
from salun_core.diffusion import denoising, saliency
from salun_core.diffusion.unlearn import methods
from tests.salun_core.diffusion import tiny, two_weights


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_magnitudes_are_those_worked_out_by_hand(guidance: float) -> None:
    """|mean of 2(w₁x + w₂sc − ε)x| and |mean of 2(w₁x + w₂sc − ε)sc|, c = 2, over 1,026 draws.

    Three samples are noised 342 times each. Without a condition the net says w₁x, so with
    guidance s it says w₁x + s·((w₁x + w₂c) − w₁x).
    """
    generator = two_weights.TwoWeights()
    forget = two_weights.two_becomes_one(generator).forget
    found = saliency.magnitudes(generator, forget, guidance=guidance, batch_size=100, seed=4)
    told = guidance * 2.0
    schedule, random = denoising.Schedule(generator), randomness.generator(4, "saliency")
    order = torch.arange(3).repeat(342)
    gradients = torch.zeros(2, dtype=torch.float64)
    for start in range(0, 1026, 100):
        noised = schedule.noise(forget.latents[order[start : start + 100]], random)
        x, noise = noised.latents.flatten().double(), noised.target.flatten().double()
        wrong = two_weights.W1 * x + two_weights.W2 * told - noise
        gradients += torch.stack([(2 * wrong * x).sum(), (2 * wrong * told).sum()]) / 1026
    assert found["w1"].item() == pytest.approx(abs(gradients[0].item()), rel=1e-4)
    assert found["w2"].item() == pytest.approx(abs(gradients[1].item()), rel=1e-4)


def test_the_guidance_of_a_recipe_is_that_of_its_mask() -> None:
    """With scale 1 w₁ matters more than w₂ here, with 20 less: its gradient grows with the square.

    2(w₁x + w₂sc − ε)sc has w₂s²c² in it, 2(w₁x + w₂sc − ε)x but w₂sc times the mean of x.
    """
    generator = two_weights.TwoWeights()
    data = two_weights.two_becomes_one(generator)
    with torch.no_grad():
        generator.denoiser.get_parameter("w2").fill_(0.01)
    chosen = [
        saliency.saliency_mask(
            generator, data.forget, data.retain, tiny.spec(density=0.5, mask_guidance=scale)
        ).layer_density
        for scale in (1.0, 20.0)
    ]
    assert chosen == [{"w1": 1.0, "w2": 0.0}, {"w1": 0.0, "w2": 1.0}]


def test_the_empty_text_is_embedded_once_for_a_whole_mask() -> None:
    generator = tiny.by_text()
    forget = tiny.concept_data(generator).forget
    embedded = 0

    def count(*_: object) -> None:
        nonlocal embedded
        embedded += 1

    with generator.text_encoder.register_forward_hook(count):
        saliency.magnitudes(generator, forget, guidance=3.0, batch_size=256, seed=0)
    assert embedded == 1


def test_the_same_request_gives_the_same_mask_and_gradients_are_left_alone() -> None:
    generator = tiny.by_class()
    data, spec = tiny.class_data(generator), tiny.spec(forget_batch_size=256)
    first, second = (
        saliency.saliency_mask(generator, data.forget, data.retain, spec) for _ in range(2)
    )
    assert all((first.bits[name] == second.bits[name]).all() for name in first.bits)
    assert first.density == pytest.approx(0.5, abs=1e-3)
    assert all(p.grad is None and p.requires_grad for p in generator.denoiser.parameters())


@pytest.mark.parametrize("contrast", [0.0, 1.0])
def test_the_embedding_of_a_kept_class_is_never_salient_and_never_changes(contrast: float) -> None:
    """Its gradient on the forget set is exactly 0, even where every other weight is salient."""
    generator = tiny.by_class()
    data = tiny.class_data(generator)
    spec = tiny.spec(steps=2, density=1.0, forget_batch_size=256, contrast=contrast)
    mask = methods.mask_for(generator, data, spec)
    assert mask is not None
    name = "class_embedding.weight"
    assert mask.layer(name).any(1).tolist() == [True, False, False, False]
    before = generator.denoiser.get_parameter(name).detach().clone()
    methods.unlearn(generator, data, mask, spec)
    after = generator.denoiser.get_parameter(name)
    assert (weights.bits(before[1:]) == weights.bits(after[1:])).all()
    assert not torch.equal(before[0], after[0])


def test_contrast_prefers_what_matters_little_for_what_is_kept() -> None:
    """With equal data for both sets |g_f|/|g_r| is nearly even; w₂'s gradient is the larger."""
    generator = two_weights.TwoWeights()
    data = two_weights.two_becomes_one(generator)
    plain = tiny.spec(density=0.5)
    chosen = saliency.saliency_mask(generator, data.forget, data.retain, plain)
    assert chosen.layer_density == {"w1": 0.0, "w2": 1.0}
    found = [
        saliency.magnitudes(generator, samples, guidance=1.0, batch_size=8, seed=0)
        for samples in (data.forget, data.retain)
    ]
    mean = (found[1]["w1"] + found[1]["w2"]) / 2
    ratios = {name: float(found[0][name] / (found[1][name] + 0.01 * mean)) for name in ("w1", "w2")}
    contrasted = saliency.saliency_mask(
        generator, data.forget, data.retain, tiny.spec(density=0.5, contrast=1.0)
    )
    winner = max(ratios, key=lambda name: ratios[name])
    assert contrasted.layer_density[winner] == 1.0


@pytest.mark.parametrize(
    ("which", "inside", "outside"),
    [
        ("cross_attention", "a.attn2.to_k.weight", "a.attn1.to_k.weight"),
        ("all_but_cross_attention", "a.attn1.to_k.weight", "a.attn2.to_k.weight"),
    ],
)
def test_kinds_of_parameters(which: generation_specs.Trainable, inside: str, outside: str) -> None:
    is_wanted = saliency.trainable(which)
    assert is_wanted(inside)
    assert not is_wanted(outside)
    assert saliency.trainable("all")(outside)


def test_density_is_a_share_of_what_may_change() -> None:
    generator = tiny.by_text()
    data = tiny.concept_data(generator)
    spec = tiny.spec(trainable="cross_attention", density=0.5, forget_batch_size=256)
    mask = saliency.saliency_mask(generator, data.forget, data.retain, spec)
    sizes = {name: p.numel() for name, p in generator.denoiser.named_parameters()}
    free = sum(size for name, size in sizes.items() if ".attn2." in name)
    assert mask.salient_count == pytest.approx(0.5 * free, abs=1)
    assert all(".attn2." in name for name, share in mask.layer_density.items() if share)


def test_a_net_without_the_kind_of_parameters_is_refused() -> None:
    generator = tiny.by_class()
    data = tiny.class_data(generator)
    for mask in ("saliency", "none"):
        spec = tiny.spec(trainable="cross_attention", mask=mask, forget_batch_size=256)
        with pytest.raises(errors.InvalidDataError):
            methods.mask_for(generator, data, spec)
