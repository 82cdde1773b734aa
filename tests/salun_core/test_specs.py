import math
import typing

import pydantic
import pytest

from salun_core import errors, specs

# As published for timm/resnet18.a1_in1k.
TIMM_FILE = {
    "architecture": "resnet18",
    "num_classes": 1000,
    "num_features": 512,
    "pretrained_cfg": {
        "tag": "a1_in1k",
        "custom_load": False,
        "input_size": [3, 224, 224],
        "test_input_size": [3, 288, 288],
        "fixed_input_size": False,
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "test_crop_pct": 1.0,
        "crop_mode": "center",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "num_classes": 1000,
        "pool_size": [7, 7],
        "first_conv": "conv1",
        "classifier": "fc",
        "origin_url": "https://example.org",
        "paper_ids": "arXiv:2110.00476",
    },
}
SMALL = {"architecture": "resnet18", "num_classes": 3}


def test_a_published_timm_file_is_read() -> None:
    config = specs.parse_classifier_config(TIMM_FILE)
    assert config.input_size == (3, 224, 224)
    assert config.pretrained_cfg.crop_pct == 0.95
    assert config.labels[999] == "999"


def test_defaults_are_timms() -> None:
    preprocessing = specs.parse_classifier_config(SMALL).pretrained_cfg
    assert preprocessing.input_size == (3, 224, 224)
    assert preprocessing.channel_mean == (0.485, 0.456, 0.406)
    assert preprocessing.crop_pct == 0.875


def test_the_older_flat_layout_is_read() -> None:
    config = specs.parse_classifier_config({**SMALL, "input_size": [1, 28, 28], "mean": [0.5]})
    assert config.input_size == (1, 28, 28)
    assert config.pretrained_cfg.channel_mean == (0.5,)


def test_one_mean_serves_every_channel() -> None:
    config = specs.parse_classifier_config({**SMALL, "pretrained_cfg": {"mean": [0.5]}})
    assert config.pretrained_cfg.channel_mean == (0.5, 0.5, 0.5)


def test_labels_are_found_by_name() -> None:
    config = specs.parse_classifier_config({**SMALL, "label_names": ["cat", "dog", "seven"]})
    assert config.label_index("seven") == 2
    with pytest.raises(errors.InvalidConfigError, match="got label 'cow', expected one of cat"):
        config.label_index("cow")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": None}, "architecture"),
        ({"architecture": "../net"}, "architecture"),
        ({"architecture": "hf-hub:someone/net"}, "architecture"),
        ({"num_classes": 1}, "num_classes"),
        ({"label_names": ["a", "b"]}, "label_names has 2 names, expected 3"),
        ({"label_names": ["a", "b", "a"]}, "repeats a name"),
        ({"library": "keras"}, "library"),
        ({"model_args": {"pretrained": True}}, "'pretrained', which may not be set"),
        ({"model_args": {"checkpoint_path": "/etc/passwd"}}, "may not be set"),
        ({"model_args": {"block": {"a": 1}}}, "holds dict, expected JSON scalars"),
        ({"model_args": {"channels": [[1]]}}, "holds list"),
        ({"model_args": {"width": 10**9}}, "at most 1e6"),
        ({"model_args": {"channels": [1] * 100}}, "100 items"),
        ({"pretrained_cfg": {"input_size": [2, 8, 8]}}, "2 channels, expected 1"),
        ({"pretrained_cfg": {"input_size": [3, 8]}}, "input_size"),
        ({"pretrained_cfg": {"input_size": [3, 8, 10**6]}}, "side of 1000000"),
        ({"pretrained_cfg": {"mean": [0.1, 0.2]}}, "mean has 2 values, expected 1 or 3"),
        ({"pretrained_cfg": {"std": [0.0]}}, "expected positive"),
        ({"pretrained_cfg": {"mean": [math.nan]}}, "finite"),
        ({"pretrained_cfg": {"crop_pct": 0}}, "crop_pct"),
        ({"pretrained_cfg": 7}, "pretrained_cfg"),
    ],
)
def test_bad_values_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(errors.InvalidConfigError, match=message):
        specs.parse_classifier_config({**SMALL, **change})


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_what_is_no_object_is_refused(data: object) -> None:
    with pytest.raises(errors.InvalidConfigError, match="expected an object"):
        specs.parse_classifier_config(data)


def test_default_recipes_follow_the_kind() -> None:
    assert specs.default_spec("samples").targets == "matched"
    assert specs.default_spec("class", seed=3).targets == "redistribute"
    assert specs.default_spec("class", seed=3).seed == 3
    assert specs.default_spec("samples", method="retrain").mask == "none"


@pytest.mark.parametrize("kind", ["samples", "class"])
@pytest.mark.parametrize("method", typing.get_args(specs.MethodName))
def test_every_method_has_a_recipe_that_survives_pinning(
    method: specs.MethodName, kind: specs.ForgetKind
) -> None:
    spec = specs.default_spec(kind, method=method, seed=3)
    assert (spec.method, spec.seed) == (method, 3)
    pinned = {"method": method, "batch_size": 32}
    assert specs.UnlearningSpec.model_validate(pinned).alpha == spec.alpha
    merged = specs.UnlearningSpec.model_validate({**spec.model_dump(mode="json"), **pinned})
    assert merged == spec.model_copy(update={"batch_size": 32})


def test_a_methods_own_figure_is_written_into_its_recipe() -> None:
    assert specs.UnlearningSpec(method="influence").model_dump()["alpha"] == 5.0
    assert specs.UnlearningSpec(method="influence", alpha=2.0).alpha == 2.0
    assert specs.UnlearningSpec(method="salun_soft").beta == 0.01
    assert specs.UnlearningSpec().alpha is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 0.5}, r"got alpha 0\.5 for salun, expected it for l1_sparse, influence, fish"),
        (
            {"method": "influence", "beta": 0.5},
            "got beta 0.5 for influence, expected it for salun_",
        ),
        ({"method": "l1_sparse", "alpha": None}, "got alpha null for l1_sparse, expected a number"),
        ({"method": "l1_sparse", "alpha": 0.0}, "alpha"),
        ({"method": "esd"}, "method"),
        ({"method": ["salun"]}, "method"),
        ([], "dictionary"),
    ],
)
def test_a_figure_that_the_method_does_not_have_is_refused(change: object, message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        specs.UnlearningSpec.model_validate(change)


@pytest.mark.parametrize("change", [{"density": 0.0}, {"epochs": 0}, {"learning_rate": math.inf}])
def test_a_recipe_refuses_what_cannot_be(change: dict[str, float]) -> None:
    with pytest.raises(pydantic.ValidationError):
        specs.UnlearningSpec.model_validate(change)


def test_a_default_is_not_copied_by_every_parse() -> None:
    """A policy is parsed by every submission and poll; copies of its gates took a quarter of it."""

    class Outer(specs.Spec):
        inner: specs.Measurement = specs.Measurement(value=1.0, n=1)

    assert Outer.model_validate({}).inner is Outer().inner
