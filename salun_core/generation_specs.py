"""Frozen descriptions for generative families: how to forget, how the model is sampled from.

Free of torch, like :mod:`salun_core.specs`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic

from salun_core import specs

GenerativeFamily = Literal["class_conditional_diffusion", "text_to_image"]
MethodName = Literal[
    "salun", "random_label", "esd", "forget_me_not", "selective_amnesia", "gradient_ascent", "uce",
    "retrain",
]  # fmt: skip
Targets = Literal["anchor", "replacement", "spread", "matched"]
Trainable = Literal["all", "cross_attention", "all_but_cross_attention"]

# The one figure that a method has beside the rate, where the spec does not say.
_ALPHA: Mapping[str, float] = {"esd": 1.0, "selective_amnesia": 10.0, "uce": 0.1}


class GenerationSpec(specs.Recipe):
    """The recipe of one job on a diffusion model, pinned when the job is first claimed.

    Every step takes a forget batch and a retain batch; its loss is the mean squared error of the
    prediction on the forget batch plus ``retain_weight`` times that on the retain batch, both
    means over all values (the authors' own α multiplies a sum over 3,072 values: 1e-3 there is
    about 3 here).

    ``targets`` says what the forget part aims at: ``anchor`` the prediction of the frozen original
    for another condition c′ on the same noisy sample (arXiv 2310.12508, equation 6);
    ``replacement`` (concepts) the same for one fifth of the batch, for the others that prediction
    on noisy pictures of c′ (Kumari et al., arXiv 2303.13516); ``spread``
    for one half of the batch the noise of kept samples under the forgotten condition, so that the
    condition comes to mean anything that is kept, and for the other half, on forgotten samples,
    what lies on the far side of the unconditional prediction; ``matched`` (samples) a denoising
    loss like that of unseen samples.

    ``mask_guidance`` is the guidance scale of the prediction whose loss the mask is computed from;
    1 is the conditional prediction alone. With ``contrast`` κ weights are ranked by
    |g_f| / |g_r|^κ, g_r being the gradient on kept samples. ``weight_average`` is the decay of the
    moving average of the weights that is kept as the result; 0 keeps the last. ``condition_drop``
    is the share of the retain batch that is learnt without a condition. ``alpha`` is η of ``esd``,
    λ of ``selective_amnesia`` and the weight of the kept prompts in ``uce``; ``None`` for all
    others. ``esd``, ``forget_me_not`` and ``uce`` have no retain term, ``uce`` takes no steps.
    """

    method: MethodName = "salun"
    targets: Targets = "anchor"
    steps: Annotated[int, pydantic.Field(ge=1, le=100_000)] = 200
    forget_batch_size: Annotated[int, pydantic.Field(ge=1, le=4096)] = 32
    retain_batch_size: Annotated[int, pydantic.Field(ge=1, le=4096)] = 64
    learning_rate: Annotated[float, pydantic.Field(gt=0.0, le=1.0)] = 1e-4
    decay: Literal["linear", "constant"] = "linear"
    retain_weight: Annotated[float, pydantic.Field(ge=0.0, le=1000.0)] = 3.0
    weight_average: Annotated[float, pydantic.Field(ge=0.0, lt=1.0)] = 0.95
    condition_drop: specs.Fraction = 0.1
    trainable: Trainable = "all"
    mask_guidance: Annotated[float, pydantic.Field(ge=1.0, le=100.0)] = 1.0
    contrast: Annotated[float, pydantic.Field(ge=0.0, le=4.0)] = 0.0
    alpha: Annotated[float, pydantic.Field(gt=0.0, le=1e6)] | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _fill(cls, data: object) -> object:
        if not isinstance(data, Mapping) or str(data.get("method")) not in _ALPHA:
            return data
        return {"alpha": _ALPHA[str(data["method"])], **data}

    @pydantic.model_validator(mode="after")
    def _check(self) -> "GenerationSpec":
        if (self.alpha is None) == (self.method in _ALPHA):
            raise ValueError(
                f"got alpha {self.alpha} for {self.method}, expected a number for "
                f"{', '.join(_ALPHA)} and null for all others"
            )
        return self


class Sampling(specs.Spec):
    """How the model is sampled from, in serving and in verification.

    ``steps`` of deterministic DDIM (arXiv 2010.02502), ``guidance_scale`` of classifier-free
    guidance (1: the conditional prediction alone), ``images`` a prompt or class in verification.
    """

    steps: Annotated[int, pydantic.Field(ge=1, le=1000)] = 25
    guidance_scale: Annotated[float, pydantic.Field(ge=1.0, le=100.0)] = 3.0
    images: Annotated[int, pydantic.Field(ge=1, le=10_000)] = 50


def default_spec(
    kind: specs.ForgetKind, *, method: MethodName = "salun", seed: int = 0
) -> GenerationSpec:
    """The recipe that is tried first for one kind of request."""
    fixed = _PAPERS.get(method, {})
    if method == "salun":
        fixed = _SALUN[kind]
    if method == "esd" and kind != "concept":  # a net without texts has no cross-attention
        fixed = {**fixed, "trainable": "all"}
    return GenerationSpec.model_validate({"method": method, "seed": seed, **fixed})


# For small models; `generation_recipes` has gentler figures for large ones. Found on the demo's two
# (`make bench-diffusion`).
_SALUN: Mapping[specs.ForgetKind, Mapping[str, Any]] = {
    "samples": {"targets": "matched"},
    "class": {
        "targets": "spread", "steps": 160, "density": 0.25, "contrast": 1.0, "learning_rate": 1e-3,
    },
    "concept": {
        "targets": "replacement",
        "steps": 120,
        "learning_rate": 1e-3,
        "forget_batch_size": 16,
        "retain_weight": 6.0,
    },
}  # fmt: skip
# The papers' settings; the mask is no part of these methods, so each starts without one.
_BARE: Mapping[str, Any] = {"mask": "none", "density": 1.0}
_PAPERS: Mapping[str, Mapping[str, Any]] = {
    "random_label": _BARE,
    "esd": {  # arXiv 2303.07345
        **_BARE, "steps": 1000, "learning_rate": 1e-5, "decay": "constant",
        "trainable": "cross_attention", "weight_average": 0.0, "retain_weight": 0.0,
    },
    "forget_me_not": {  # arXiv 2303.17591
        **_BARE, "steps": 35, "learning_rate": 2e-6, "decay": "constant",
        "trainable": "cross_attention", "weight_average": 0.0, "retain_weight": 0.0,
    },
    "selective_amnesia": {**_BARE, "learning_rate": 1e-5, "retain_weight": 1.0},  # 2305.10120
    "gradient_ascent": {**_BARE, "steps": 100, "learning_rate": 1e-5},
    "uce": {  # arXiv 2308.14761
        **_BARE, "trainable": "cross_attention", "steps": 1, "retain_weight": 0.0,
    },
    "retrain": {
        **_BARE, "steps": 1600, "learning_rate": 2e-3, "weight_average": 0.995,
        "retain_batch_size": 64, "retain_weight": 1.0,
    },
}  # fmt: skip
