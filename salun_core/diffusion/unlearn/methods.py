"""The method of a recipe, its mask, and what must hold whatever the method."""

from collections.abc import Mapping

from salun_core import errors, generation_specs, masked_step, masks, progress
from salun_core.diffusion import generator as generators
from salun_core.diffusion import saliency
from salun_core.diffusion.unlearn import (
    contract,
    esd,
    forget_me_not,
    gradient_ascent,
    random_label,
    retrain,
    salun,
    selective_amnesia,
    uce,
)
from salun_core.unlearn import contract as results
from salun_core.unlearn import methods as classifier_methods

METHODS: Mapping[generation_specs.MethodName, contract.Method] = {
    "salun": salun.unlearn,
    "random_label": random_label.unlearn,
    "esd": esd.unlearn,
    "forget_me_not": forget_me_not.unlearn,
    "selective_amnesia": selective_amnesia.unlearn,
    "gradient_ascent": gradient_ascent.unlearn,
    "uce": uce.unlearn,
    "retrain": retrain.unlearn,
}


def mask_for(
    generator: generators.Generator,
    data: contract.GenerationData,
    spec: generation_specs.GenerationSpec,
    report: progress.Progress = progress.silent,
) -> masks.SaliencyMask | None:
    """The mask that the recipe asks for; ``None`` where every weight may change.

    Raises:
        InvalidDataError: the recipe changes a kind of parameters that the net has not.
        NonFiniteLossError: the original's gradients are not finite.
    """
    if spec.mask == "none":
        if spec.trainable == "all":
            return None
        return masks.parameters_mask(generator.denoiser, saliency.trainable(spec.trainable))
    mask = saliency.saliency_mask(generator, data.forget, data.retain, spec, report)
    return masks.random_mask(mask, spec.seed) if spec.mask == "random" else mask


def unlearn(
    generator: generators.Generator,
    data: contract.GenerationData,
    mask: masks.SaliencyMask | None,
    spec: generation_specs.GenerationSpec,
    report: progress.Progress = progress.silent,
    checkpoints: progress.Checkpoints | None = None,
) -> results.UnlearnResult:
    """Run ``spec.method`` in place on the denoiser, and prove what must hold.

    Args:
        generator: holds the original weights, also when a run is resumed from ``checkpoints``.
        data: what the method may look at.
        mask: weights that may change; ``None`` for all.
        spec: the recipe.
        report: called at every step; may raise ``CancelledError``.
        checkpoints: where the state is kept during the run, and taken up from.

    Raises:
        InvalidDataError: the sets, or mask and net, do not fit each other.
        NonFiniteLossError: the loss or a weight became NaN or infinite.
        FrozenWeightChangedError: a weight outside the mask is not bit-identical.
        CancelledError: from ``report``.
    """
    contract.check_data(data)
    original = masked_step.copy_state(generator.denoiser)
    if spec.method not in METHODS:
        raise errors.InvalidDataError(f"got method {spec.method!r}, expected {sorted(METHODS)}")
    with generators.denoiser_alone(generator):
        result = METHODS[spec.method](generator, data, mask, spec, report, checkpoints)
    classifier_methods.assert_finite(generator.denoiser)
    masked_step.assert_frozen_unchanged(original, generator.denoiser, mask, result.changed_buffers)
    return result
