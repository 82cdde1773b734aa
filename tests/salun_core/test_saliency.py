import copy

import numpy as np
import pytest
import torch
from torch.nn import functional

from salun_core import errors, images, masks, preprocessing, saliency, selection
from salun_core.unlearn import contract


def obvious_mask(magnitudes: dict[str, torch.Tensor], density: float) -> dict[str, np.ndarray]:
    """Sort everything, ties by position, zeros never: slow, but plainly what is meant."""
    flat = np.concatenate([m.numpy().ravel() for m in magnitudes.values()])
    wanted = max(1, round(density * flat.size))
    order = sorted(range(flat.size), key=lambda i: (-flat[i], i))[:wanted]
    chosen = np.zeros(flat.size, dtype=bool)
    chosen[[i for i in order if flat[i] > 0.0]] = True
    found, start = {}, 0
    for name, m in magnitudes.items():
        found[name] = chosen[start : start + m.numel()].reshape(m.shape)
        start += m.numel()
    return found


def magnitudes_of(kind: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    layers = {
        "a": torch.rand(7, 11, generator=generator),
        "b": torch.rand(501, generator=generator),
        "c": torch.rand(3, 5, 2, generator=generator),
    }
    if kind == "mostly zero":
        layers = {name: m * (m > 0.7) for name, m in layers.items()}
    elif kind == "ties":
        layers = {name: (m * 4).floor() for name, m in layers.items()}
    elif kind == "one value":
        layers = {name: torch.ones_like(m) for name, m in layers.items()}
    elif kind == "zero":
        layers = {name: torch.zeros_like(m) for name, m in layers.items()}
    return layers


@pytest.mark.parametrize("kind", ["continuous", "mostly zero", "ties", "one value", "zero"])
@pytest.mark.parametrize("density", [0.001, 0.1, 0.5, 0.9, 1.0])
def test_mask_is_the_obvious_one(kind: str, density: float) -> None:
    magnitudes = magnitudes_of(kind)
    mask = saliency.mask_from_magnitudes(magnitudes, density)
    for name, wanted in obvious_mask(magnitudes, density).items():
        np.testing.assert_array_equal(mask.layer(name).numpy(), wanted)


def test_density_is_exact_where_gradients_allow_it() -> None:
    mask = saliency.mask_from_magnitudes(magnitudes_of("one value"), 0.5)
    assert mask.salient_count == round(0.5 * mask.total)


def test_tie_trap_zero_gradients_are_never_salient() -> None:
    """70 % zeros at density 0.5: ranking by ``>= 0`` would take all; 30 % may be taken."""
    magnitudes = magnitudes_of("mostly zero")
    mask = saliency.mask_from_magnitudes(magnitudes, 0.5)
    nonzero = sum(int((m > 0).sum()) for m in magnitudes.values())
    assert mask.salient_count == nonzero < 0.5 * mask.total
    assert mask.zero_share == pytest.approx(1.0 - nonzero / mask.total)


@pytest.mark.parametrize("density", [0.0, -0.1, 1.01])
def test_density_outside_its_range_is_refused(density: float) -> None:
    with pytest.raises(errors.InvalidDataError, match="density"):
        saliency.mask_from_magnitudes(magnitudes_of("ties"), density)


def test_kth_largest_of_many_is_that_of_sorting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small limit makes every pass count chunk by chunk."""
    monkeypatch.setattr(selection, "_CHUNK", 1000)
    generator = torch.Generator().manual_seed(5)
    parts = [torch.randn(n, generator=generator).abs() for n in (7001, 1, 13000)]
    parts[2][:9000] = 0.25
    ordered = torch.cat(parts).sort(descending=True).values
    for k in (1, 2, 500, 7000, 15000, len(ordered)):
        threshold, larger = selection.kth_largest(parts, k)
        assert threshold == ordered[k - 1].item()
        assert larger == int((ordered > threshold).sum())


def test_magnitudes_are_the_mean_gradient_taken_once(
    trained: torch.nn.Module,
    data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    """|1/N Σ ∇ℓ_i|, one sample at a time: not the mean of absolute values."""
    forget_set = data.forget_set
    found = saliency.gradient_magnitudes(trained, forget_set, preprocess, batch_size=7)
    slow = {name: torch.zeros_like(p) for name, p in trained.named_parameters()}
    net = copy.deepcopy(trained).eval()
    for row in range(len(forget_set)):
        net.zero_grad()
        output = net(preprocess.normalise(forget_set.images[row : row + 1]))
        functional.cross_entropy(output, forget_set.labels[row : row + 1]).backward()  # type: ignore[no-untyped-call]
        for name, p in net.named_parameters():
            assert p.grad is not None
            slow[name] += p.grad / len(forget_set)
    for name, magnitude in found.items():
        torch.testing.assert_close(magnitude, slow[name].abs(), atol=1e-6, rtol=1e-3)


def test_same_inputs_same_bits_in_any_order_and_mode(
    trained: torch.nn.Module,
    data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    first = saliency.saliency_mask(trained, data.forget_set, preprocess, 0.5)
    backwards = data.forget_set.subset(list(reversed(range(len(data.forget_set)))))
    net = copy.deepcopy(trained).train()
    marker = torch.ones(1)
    next(net.parameters()).grad = marker.expand_as(next(net.parameters())).clone()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    second = saliency.saliency_mask(net, backwards, preprocess, 0.5)
    assert all((first.bits[name] == second.bits[name]).all() for name in first.bits)
    assert net.training
    assert bool((next(net.parameters()).grad == 1.0).all())  # type: ignore[union-attr]
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


def test_not_finite_gradient_is_an_error(
    trained: torch.nn.Module,
    data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    net = copy.deepcopy(trained)
    with torch.no_grad():
        next(net.parameters()).fill_(float("nan"))
    with pytest.raises(errors.NonFiniteLossError, match="gradient"):
        saliency.saliency_mask(net, data.forget_set, preprocess, 0.5)


def test_empty_forget_set_is_refused(
    trained: torch.nn.Module,
    data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    empty: images.ImageSet = data.forget_set.subset([])
    with pytest.raises(errors.InvalidDataError, match="empty forget set"):
        saliency.saliency_mask(trained, empty, preprocess, 0.5)


def test_mask_survives_its_tensors() -> None:
    mask = saliency.mask_from_magnitudes(magnitudes_of("mostly zero"), 0.2)
    again = masks.SaliencyMask.from_tensors(mask.to_tensors())
    assert again.jaccard(mask) == 1.0
    assert again.layer_density == mask.layer_density
    assert (again.kind, again.requested_density) == ("saliency", 0.2)
    assert again.zero_share == mask.zero_share


def test_random_mask_keeps_the_density_of_every_layer() -> None:
    mask = saliency.mask_from_magnitudes(magnitudes_of("continuous"), 0.3)
    control = masks.random_mask(mask, seed=1)
    assert control.layer_density == mask.layer_density
    assert control.kind == "random"
    assert control.jaccard(mask) < 0.5
    assert control.jaccard(masks.random_mask(mask, seed=1)) == 1.0
    assert control.jaccard(masks.random_mask(mask, seed=2)) < 1.0


def test_broken_mask_tensors_are_refused() -> None:
    tensors = saliency.mask_from_magnitudes(magnitudes_of("ties"), 0.5).to_tensors()
    with pytest.raises(errors.InvalidDataError, match="summary"):
        masks.SaliencyMask.from_tensors({})
    with pytest.raises(errors.InvalidDataError, match="bytes for b"):
        masks.SaliencyMask.from_tensors(tensors | {"bits.b": tensors["bits.b"][1:]})
