import copy
from typing import get_args

import pytest
import torch

from salun_core import errors, generation_specs, progress, weights
from salun_core.diffusion.unlearn import methods
from tests.salun_core.diffusion import tiny
from tests.salun_core.unlearn import checkpoints


def test_every_method_is_there() -> None:
    assert set(methods.METHODS) == set(get_args(generation_specs.MethodName))


@pytest.mark.parametrize("method", get_args(generation_specs.MethodName))
def test_every_method_runs_and_changes_what_it_may(method: generation_specs.MethodName) -> None:
    generator = tiny.by_text()
    data = tiny.concept_data(generator)
    own = generation_specs.default_spec("concept", method=method)
    quick = {"steps": 2, "targets": "anchor", "mask": "none", "forget_batch_size": 8}
    spec = own.model_copy(update=quick)
    mask = methods.mask_for(generator, data, spec)
    before = copy.deepcopy(generator.denoiser)
    result = methods.unlearn(generator, data, mask, spec)
    assert result.steps == (1 if method == "uce" else 2)
    changed = {
        name
        for name, parameter in generator.denoiser.named_parameters()
        if not torch.equal(parameter, before.get_parameter(name))
    }
    assert changed
    if spec.trainable == "cross_attention":
        assert all(".attn2." in name for name in changed)


@pytest.mark.parametrize("method", ["salun", "selective_amnesia"])
def test_a_run_that_was_stopped_ends_in_the_bits_of_an_undisturbed_one(
    method: generation_specs.MethodName,
) -> None:
    generator = tiny.by_class()
    data = tiny.class_data(generator)
    spec = tiny.spec(method=method, mask="random", steps=6, retain_batch_size=64)
    mask = methods.mask_for(generator, data, spec)
    undisturbed, stopped, resumed = (
        generator.with_denoiser(copy.deepcopy(generator.denoiser)) for _ in range(3)
    )
    whole = methods.unlearn(undisturbed, data, mask, spec)
    kept = checkpoints.Kept()
    with pytest.raises(errors.CancelledError):
        methods.unlearn(stopped, data, mask, spec, _stopping_at(4), kept)
    result = methods.unlearn(resumed, data, mask, spec, progress.silent, kept)
    assert result == whole
    for a, b in zip(undisturbed.denoiser.parameters(), resumed.denoiser.parameters(), strict=True):
        assert (weights.bits(a) == weights.bits(b)).all()


def test_a_random_mask_is_as_dense_in_every_layer() -> None:
    generator = tiny.by_class()
    data = tiny.class_data(generator)
    salient, random = (
        methods.mask_for(generator, data, tiny.spec(mask=mask, forget_batch_size=256))
        for mask in ("saliency", "random")
    )
    assert salient is not None
    assert random is not None
    assert salient.layer_density == random.layer_density
    assert salient.jaccard(random) < 0.9


def test_weights_that_are_not_finite_are_told() -> None:
    generator = tiny.by_class()
    data = tiny.class_data(generator)
    with torch.no_grad():
        generator.denoiser.get_parameter("conv_in.bias")[0] = float("nan")
    with pytest.raises(errors.NonFiniteLossError):
        methods.unlearn(generator, data, None, tiny.spec(mask="none"))


def _stopping_at(wanted: int) -> progress.Progress:
    def report(step: int, total: int) -> None:
        if step == wanted:
            raise errors.CancelledError(f"stopped at {step} of {total}")

    return report
