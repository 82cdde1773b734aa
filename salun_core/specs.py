"""Frozen, self-validating descriptions that travel between API, database row and worker.

Free of torch, so that the HTTP side can use them. All shares and rates are fractions in [0, 1].
"""

import re
import statistics
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import pydantic

from salun_core import errors

Fraction = Annotated[float, pydantic.Field(ge=0.0, le=1.0)]
PositiveFraction = Annotated[float, pydantic.Field(gt=0.0, le=1.0)]

# Standard errors that a figure may miss by, by default: one in twenty like ones misses by more on
# one side. Of several figures the surest is found by the same number.
Z = 1.64
_NORMAL = statistics.NormalDist()


Side = Literal["both", "not_above", "not_below"]


def miss(distance: float, side: Side) -> float:
    """By how much a value that lies so far above its target misses it, on the side that counts."""
    return {"both": abs(distance), "not_above": distance, "not_below": -distance}[side]


def widened(z: float, comparisons: int) -> float:
    """The standard errors by which the worst of so many like figures misses as often as one by z.

    Šidák's correction, Φ⁻¹(Φ(z)^(1/k)): without it, who looks at a hundred classes finds one that
    lost something though none did (JASA 62, 1967). Without standard errors (z = 0) none are added.
    """
    if comparisons == 1 or z == 0.0:
        return z
    return _NORMAL.inv_cdf(_NORMAL.cdf(z) ** (1.0 / comparisons))


class Spec(pydantic.BaseModel):
    """Base: immutable, unknown keys refused, NaN and infinity refused."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __deepcopy__(self, _: dict[int, Any] | None = None) -> Self:
        """Itself, for it never changes; pydantic copies every default each time it parses."""
        return self


# --- what to forget -------------------------------------------------------------------------

_IDENTIFIER = r"^[^\x00-\x1f\x7f]+$"
_LONGEST_IDENTIFIER = 256
Identifier = Annotated[
    str, pydantic.Field(min_length=1, max_length=_LONGEST_IDENTIFIER, pattern=_IDENTIFIER)
]


def is_identifier(text: str) -> bool:
    """Whether a text can be an :data:`Identifier`."""
    return len(text) <= _LONGEST_IDENTIFIER and re.fullmatch(_IDENTIFIER, text) is not None


class SampleTarget(Spec):
    """Training samples named one by one."""

    kind: Literal["sample"]
    ids: Annotated[tuple[Identifier, ...], pydantic.Field(min_length=1, max_length=100_000)]


class ClassTarget(Spec):
    """Every training sample of one class."""

    kind: Literal["class"]
    label: Identifier


class SubjectTarget(Spec):
    """Every training sample of one person (the dataset's ``subject_id`` column)."""

    kind: Literal["subject"]
    subject_id: Identifier


class ConceptTarget(Spec):
    """What a text-to-image model shall no longer draw, and what it draws instead.

    ``prompts`` are the caller's own examples; without any, templates are filled.
    """

    kind: Literal["concept"]
    concept: Identifier
    replacement: Identifier
    prompts: Annotated[tuple[Identifier, ...], pydantic.Field(max_length=100)] = ()


Target = Annotated[
    SampleTarget | ClassTarget | SubjectTarget | ConceptTarget,
    pydantic.Field(discriminator="kind"),
]


# --- how to forget --------------------------------------------------------------------------

MethodName = Literal[
    "salun", "salun_soft", "random_label", "finetune", "gradient_ascent", "l1_sparse", "influence",
    "fisher_forgetting", "boundary_shrink", "boundary_expand", "retrain",
]  # fmt: skip
ForgetTargets = Literal["matched", "redistribute", "random_label"]
MaskKind = Literal["saliency", "random", "none"]

# Where the spec does not say; methods without an entry have no such figure.
_ALPHA: Mapping[str, float] = {"l1_sparse": 5e-5, "influence": 5.0, "fisher_forgetting": 1e-6}
_BETA: Mapping[str, float] = {"salun_soft": 1e-2}
_JOINT: tuple[MethodName, ...] = ("salun", "salun_soft")


class Recipe(Spec):
    """What recipes of every family say: which method, which weights may change, which seed."""

    method: str
    mask: MaskKind = "saliency"
    density: PositiveFraction = 0.5
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**63)] = 0


class UnlearningSpec(Recipe):
    """The recipe of one job, pinned when the job is first claimed.

    ``density`` is the share of all weights that may change (the authors' ``with_0.5.pt`` is
    density 0.5). ``epochs`` counts passes over the retain set, except for the paper's recipe
    (``targets="random_label"``), where one epoch is a pass over the forget set and then one over
    the retain set (arXiv 2310.12508, algorithm 1), and for ``gradient_ascent``,
    ``boundary_shrink`` and ``boundary_expand``, which see the forget set alone. ``influence`` and
    ``fisher_forgetting`` change the net once and have no epochs.

    Joint recipes (``salun`` and ``salun_soft`` with matched or redistributed targets) may have
    their ``learning_rate`` lowered to what the net bears (``probe_rate``) and end sooner than
    planned once the forget set is where it should be (``early_stop``).

    ``alpha`` is the one figure that these methods have beside a learning rate, ``None`` for all
    others: ``l1_sparse`` the weight of the l1 norm in the loss, ``influence`` the length of the
    Newton step (1 is the theory's), ``fisher_forgetting`` the variance of the noise where the
    Fisher information is 1. ``beta`` is how hard ``salun_soft`` holds a weight where it was: the
    weight of ‖θ − θo‖₁ in the loss, at the start.
    """

    method: MethodName = "salun"
    targets: ForgetTargets = "matched"
    epochs: Annotated[int, pydantic.Field(ge=1, le=1000)] = 4
    batch_size: Annotated[int, pydantic.Field(ge=2, le=65_536)] = 128
    learning_rate: Annotated[float, pydantic.Field(gt=0.0, le=10.0)] = 0.05
    momentum: Annotated[float, pydantic.Field(ge=0.0, lt=1.0)] = 0.9
    weight_decay: Annotated[float, pydantic.Field(ge=0.0, le=1.0)] = 5e-4
    decay: Literal["linear", "constant"] = "linear"
    warmup_fraction: Annotated[float, pydantic.Field(ge=0.0, lt=1.0)] = 0.15
    forget_weight: Annotated[float, pydantic.Field(gt=0.0, le=100.0)] = 0.15
    score_weight: Annotated[float, pydantic.Field(ge=0.0, le=100.0)] = 0.15
    line_search: bool = True
    early_stop: bool = False
    probe_rate: bool = False
    alpha: Annotated[float, pydantic.Field(gt=0.0, le=1e4)] | None = None
    beta: Annotated[float, pydantic.Field(gt=0.0, le=1e4)] | None = None

    def count_batches(self, count: int) -> int:
        """Batches of one pass over so many samples."""
        return -(-count // self.batch_size)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _fill(cls, data: object) -> object:
        # Written into the recipe, so that a pinned one does not change with our defaults.
        if not isinstance(data, Mapping):
            return data
        method = str(data.get("method"))
        own = (("alpha", _ALPHA), ("beta", _BETA))
        return {**{name: users[method] for name, users in own if method in users}, **data}

    @pydantic.model_validator(mode="after")
    def _check(self) -> "UnlearningSpec":
        for name, value, users in (("alpha", self.alpha, _ALPHA), ("beta", self.beta, _BETA)):
            if value is None and self.method in users:
                raise ValueError(f"got {name} null for {self.method}, expected a number")
            if value is not None and self.method not in users:
                raise ValueError(
                    f"got {name} {value} for {self.method}, expected it for {', '.join(users)} only"
                )
        joint = self.method in _JOINT and self.targets != "random_label"
        if not joint and (self.probe_rate or self.early_stop):
            raise ValueError(
                f"got probe_rate or early_stop for {self.method} with {self.targets} targets, "
                f"expected it for {' and '.join(_JOINT)} with matched or redistributed ones only"
            )
        return self


# --- what was measured ----------------------------------------------------------------------


class Measurement(Spec):
    """One measured number with what is needed to judge it.

    ``target`` is the value that retraining would be expected to give (for example the accuracy on
    class-matched holdout samples); ``None`` where the policy alone sets it. ``standard_error`` is
    the sampling error of ``value - target``. Where samples were compared in folds ``value`` may be
    that of one of them, not the same for every net: nets are compared by ``whole``. Where the value
    is that of the worst of several groups, ``comparisons`` says of how many: see :func:`widened`.

    ``side`` says which misses can be this net's doing. One that never saw the data cannot have been
    pushed too far: what it knows less well than other unseen samples is hard, as a person's
    pictures may be. Nets retrained without 60 pictures that look alike had an AUC of .29 to .45 on
    them (two clusters of `benchmarks.quality`, two nets each).
    """

    value: float
    target: float | None = None
    standard_error: Annotated[float, pydantic.Field(ge=0.0)] | None = None
    n: int | None = None
    comparisons: Annotated[int, pydantic.Field(ge=1)] = 1
    side: Side = "both"
    detail: Mapping[str, Any] = {}

    @property
    def whole(self) -> float:
        """The value of all samples: the mean over folds where there are several."""
        return float(self.detail.get("mean", self.value))


ForgetKind = Literal["samples", "class", "concept"]
Family = Literal["classifier", "class_conditional_diffusion", "text_to_image"]


class VerificationReport(Spec):
    """What verification measured on one unlearned net, and the evidence behind it."""

    kind: ForgetKind
    family: Family = "classifier"
    metrics: Mapping[str, Measurement]
    evidence: Mapping[str, Any]
    seconds: Mapping[str, float]


# --- recipes --------------------------------------------------------------------------------


def default_spec(
    kind: ForgetKind, *, method: MethodName = "salun", seed: int = 0
) -> UnlearningSpec:
    """The recipe that is tried first for one kind of request.

    ``samples`` (also a subject that is not a whole class) are matched to unseen data, a ``class``
    is redistributed over the other classes.
    """
    if method in ("salun", "salun_soft"):
        return _salun_spec(kind, method, seed)
    return UnlearningSpec(method=method, mask="none", density=1.0, seed=seed, **_BASELINES[method])


# The papers' settings: the mask is no part of these methods, so each starts without one.
_STEADY: Mapping[str, Any] = {"decay": "constant", "warmup_fraction": 0.0}
_BASELINES: Mapping[str, Mapping[str, Any]] = {
    # RL, GA, FT and l1-sparse: arXiv 2310.12508, appendix C; learning rates tuned within
    # [1e-3, 1e-1], [1e-5, 1e-3], [1e-3, 1e-1] and α within [1e-6, 1e-4].
    "random_label": {
        "targets": "random_label", "epochs": 10, "batch_size": 256, "learning_rate": 0.013,
        **_STEADY,
    },
    "gradient_ascent": {"epochs": 5, "batch_size": 256, "learning_rate": 1e-4, **_STEADY},
    "finetune": {"epochs": 10, "learning_rate": 0.01},
    "l1_sparse": {"epochs": 10, "learning_rate": 0.01},
    "influence": {"epochs": 1, "batch_size": 256},
    "fisher_forgetting": {"epochs": 1, "batch_size": 256},
    "boundary_shrink": {"epochs": 10, "batch_size": 64, "learning_rate": 1e-5, **_STEADY},
    "boundary_expand": {"epochs": 10, "batch_size": 64, "learning_rate": 1e-5, **_STEADY},
    "retrain": {"epochs": 30, "batch_size": 64, "learning_rate": 0.05},
}  # fmt: skip


def _salun_spec(kind: ForgetKind, method: MethodName, seed: int) -> UnlearningSpec:
    # Small batches: with fewer steps than these a small net ends up to two points worse on the
    # test set. The soft variant finds its weights itself and needs no mask.
    mask: dict[str, Any] = {"mask": "none", "density": 1.0} if method == "salun_soft" else {}
    if kind == "class":
        return UnlearningSpec(
            method=method,
            targets="redistribute",
            epochs=6,
            batch_size=64,
            learning_rate=0.03,
            probe_rate=True,
            seed=seed,
            **mask,
        )
    return UnlearningSpec(
        method=method,
        targets="matched",
        epochs=8,
        batch_size=64,
        learning_rate=0.05,
        forget_weight=0.3,
        probe_rate=True,
        early_stop=method == "salun",  # the soft variant's pull is scheduled over the whole run
        seed=seed,
        **mask,
    )


# --- what the net is ------------------------------------------------------------------------

Library = Literal["timm", "torchvision", "salun.architectures"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
CropMode = Literal["center", "squash", "border"]

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_MAX_IMAGE_SIDE = 4096
# Builders take these from us alone: they would fetch weights, read paths or contradict the file.
_RESERVED_ARGS = frozenset(
    {
        "cache_dir", "checkpoint_path", "device", "dtype", "exportable", "features_only",
        "no_jit", "num_classes", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay",
        "pretrained_strict", "progress", "scriptable", "weights", "weights_backbone",
    }
)  # fmt: skip


class PretrainedConfig(pydantic.BaseModel):
    """How an image becomes the net's input: timm's ``pretrained_cfg`` with timm's defaults.

    ``input_size`` is (channels, height, width) in pixels; ``mean`` and ``std`` are per channel on
    a scale of 0 to 1; ``crop_pct`` is the share of the resized image's side that the crop keeps.
    Keys that say nothing about preprocessing are ignored.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    input_size: tuple[pydantic.PositiveInt, pydantic.PositiveInt, pydantic.PositiveInt] = (
        3,
        224,
        224,
    )
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    interpolation: Interpolation = "bicubic"
    crop_pct: Annotated[float, pydantic.Field(gt=0.0, le=1.0)] = 0.875
    crop_mode: CropMode = "center"

    @pydantic.model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: object) -> object:
        # timm writes null for "take the default".
        if not isinstance(data, Mapping):
            return data
        return {key: value for key, value in data.items() if value is not None}

    @pydantic.model_validator(mode="after")
    def _check(self) -> "PretrainedConfig":
        channels, *sides = self.input_size
        if channels not in (1, 3):
            raise ValueError(f"input_size has {channels} channels, expected 1 (grey) or 3 (RGB)")
        if max(sides) > _MAX_IMAGE_SIDE:
            raise ValueError(
                f"input_size has a side of {max(sides)}, expected <= {_MAX_IMAGE_SIDE}"
            )
        if len(self.channel_mean) != channels or min(self.channel_std) <= 0.0:
            raise ValueError(f"std is {self.std}, expected positive numbers")
        return self

    @property
    def channel_mean(self) -> tuple[float, ...]:
        """One mean for every channel, on a scale of 0 to 1."""
        return self._per_channel("mean", self.mean, _IMAGENET_MEAN)

    @property
    def channel_std(self) -> tuple[float, ...]:
        """One standard deviation for every channel, on a scale of 0 to 1."""
        return self._per_channel("std", self.std, _IMAGENET_STD)

    def _per_channel(
        self, name: str, given: tuple[float, ...], default: tuple[float, ...]
    ) -> tuple[float, ...]:
        channels = self.input_size[0]
        values = given or default[:channels]
        if len(values) == 1:
            values = values * channels
        if len(values) != channels:
            raise ValueError(f"{name} has {len(values)} values, expected 1 or {channels}")
        return values


class ClassifierConfig(pydantic.BaseModel):
    """A classifier's ``config.json`` in timm's hub layout, as far as we use it.

    ``library`` says who builds ``architecture``: ``timm`` (default), ``torchvision``, or a Python
    entry point of the group ``salun.architectures``. ``model_args`` go to that builder, so they
    are limited to JSON scalars and lists of them. Unknown keys are ignored.
    """

    model_config = pydantic.ConfigDict(
        frozen=True, extra="ignore", allow_inf_nan=False, protected_namespaces=()
    )

    architecture: Annotated[str, pydantic.Field(max_length=128, pattern=r"^[A-Za-z0-9_.\-]+$")]
    num_classes: Annotated[int, pydantic.Field(ge=2, le=1_000_000)]
    label_names: tuple[Identifier, ...] = ()
    library: Library = "timm"
    model_args: Mapping[str, Any] = {}
    pretrained_cfg: PretrainedConfig = PretrainedConfig()

    @pydantic.model_validator(mode="after")
    def _check(self) -> "ClassifierConfig":
        if self.label_names and len(self.label_names) != self.num_classes:
            raise ValueError(
                f"label_names has {len(self.label_names)} names, expected {self.num_classes}"
            )
        if len(set(self.label_names)) != len(self.label_names):
            raise ValueError("label_names repeats a name, expected distinct names")
        _check_model_args(self.builder_args)
        return self

    @property
    def builder_args(self) -> dict[str, Any]:
        """``model_args`` without what timm repeats there of the rest of the file."""
        repeated = {"num_classes": self.num_classes, "in_chans": self.input_size[0]}
        return {
            name: value
            for name, value in self.model_args.items()
            if name not in repeated or value != repeated[name]
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of every class; its number where the file has no names."""
        return self.label_names or tuple(str(index) for index in range(self.num_classes))

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(channels, height, width) of one input image."""
        return self.pretrained_cfg.input_size

    def label_index(self, label: str) -> int:
        """The class number of a label name.

        Raises:
            InvalidConfigError: the net has no class of that name.
        """
        if label not in self.labels:
            raise errors.InvalidConfigError(
                f"got label {label!r}, expected one of {', '.join(self.labels[:20])}"
            )
        return self.labels.index(label)


def parse_classifier_config(data: object) -> ClassifierConfig:
    """Read a parsed ``config.json``.

    Raises:
        InvalidConfigError: not an object, a key is missing or a value is bad; the message names
            the first few, what was got and what was expected.
    """
    if not isinstance(data, Mapping):
        raise errors.InvalidConfigError(
            f"config.json: got {type(data).__name__}, expected an object"
        )
    try:
        return ClassifierConfig.model_validate(_with_flat_layout(data))
    except pydantic.ValidationError as error:
        raise errors.InvalidConfigError(f"config.json: {_explain(error)}") from error


def _with_flat_layout(data: Mapping[str, Any]) -> dict[str, Any]:
    # timm's older files have the keys of pretrained_cfg at the top level.
    merged = {key: value for key, value in data.items() if value is not None}
    nested = merged.setdefault("pretrained_cfg", dict(merged))
    if isinstance(nested, Mapping):
        for key in ("num_classes", "label_names", "architecture"):
            if key not in merged and nested.get(key) is not None:
                merged[key] = nested[key]
    return merged


def _explain(error: pydantic.ValidationError) -> str:
    parts = []
    for item in error.errors()[:3]:
        where = ".".join(str(part) for part in item["loc"]) or "the file"
        message = item["msg"].removeprefix("Value error, ")
        got = "" if item["type"] == "missing" else f" (got {_shorten(item['input'])})"
        parts.append(f"{where}: {message}{got}")
    return "; ".join(parts)


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _check_model_args(model_args: Mapping[str, Any]) -> None:
    for name, value in model_args.items():
        if name in _RESERVED_ARGS or not name.isidentifier():
            raise ValueError(f"model_args has {name!r}, which may not be set there")
        items = value if isinstance(value, list | tuple) else (value,)
        if len(items) > 64:
            raise ValueError(f"model_args.{name} has {len(items)} items, expected <= 64")
        for item in items:
            _check_scalar(name, item)


def _check_scalar(name: str, value: object) -> None:
    if value is not None and not isinstance(value, str | int | float | bool):
        raise ValueError(
            f"model_args.{name} holds {type(value).__name__}, expected JSON scalars or a list"
        )
    if isinstance(value, int | float) and abs(value) > 1e6:
        raise ValueError(f"model_args.{name} holds {value}, expected at most 1e6 in size")
    if isinstance(value, str) and len(value) > 128:
        raise ValueError(f"model_args.{name} holds {len(value)} characters, expected <= 128")
