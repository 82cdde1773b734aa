"""Schedules that no picture can be drawn with are refused before a model is served."""

from pathlib import Path
from typing import Any

import pytest

from salun_core import errors, generation_specs
from salun_core.diffusion import class_conditional, folders, sampling, trial
from tests.salun_core.diffusion import tiny

SAMPLING = generation_specs.Sampling(steps=10, guidance_scale=2.0)
WHERE = "scheduler/scheduler_config.json: "


def opened(folder: Path, **schedule: object) -> class_conditional.ClassConditional:
    tiny.class_folder(folder)
    tiny.change(folder / WHERE.removesuffix(": "), **schedule)
    made = folders.open_generator(folder, "class_conditional_diffusion", tiny.CLASSES)
    assert isinstance(made, class_conditional.ClassConditional)
    return made


@pytest.mark.parametrize(
    ("schedule", "named"),
    [
        ({"trained_betas": [0.1, 0.2]}, "got 2 betas, expected 100"),
        ({"num_train_timesteps": 0}, "num_train_timesteps 0"),
        ({"num_train_timesteps": 10**9}, "num_train_timesteps 1000000000"),
        ({"num_train_timesteps": "many"}, "num_train_timesteps 'many'"),
        ({"beta_schedule": "linear", "beta_end": "x"}, "cannot be opened"),
        ({"beta_schedule": "linear", "beta_end": float("nan")}, "not finite"),
    ],
)
def test_what_makes_no_schedule_does_not_open(
    tmp_path: Path, schedule: dict[str, Any], named: str
) -> None:
    with pytest.raises(errors.InvalidConfigError, match=named) as caught:
        opened(tmp_path, **schedule)
    assert str(caught.value).startswith(WHERE)


@pytest.mark.parametrize(
    ("schedule", "named"),
    [
        ({"timestep_spacing": "foo"}, "cannot be sampled with: foo"),
        ({"steps_offset": 5000}, "cannot be sampled with: index"),
        ({"steps_offset": 10}, "cannot be sampled with: index"),  # of ten steps the last: 90 + 10
        ({"clip_sample_range": "x"}, "cannot be sampled with"),
        ({"num_train_timesteps": 1}, "got 1 num_train_timesteps, expected at least the 10 steps"),
        (
            {"beta_schedule": "linear", "beta_start": -0.5, "beta_end": -0.1,
             "clip_sample": False}, "NaN or infinity",
        ),
    ],
)  # fmt: skip
def test_a_schedule_that_cannot_be_walked_is_refused(
    tmp_path: Path, schedule: dict[str, Any], named: str
) -> None:
    made = opened(tmp_path, **schedule)
    with pytest.raises(errors.InvalidConfigError, match=named) as caught:
        trial.check_sampling(made, SAMPLING)
    assert str(caught.value).startswith(WHERE)


@pytest.mark.parametrize("make", [tiny.by_class, tiny.by_text])
def test_what_can_be_drawn_passes(make: Any) -> None:
    made = make()
    trial.check_sampling(made, SAMPLING)
    trial.check_sampling(made, SAMPLING.model_copy(update={"steps": 1}))
    trial.check_sampling(made, SAMPLING.model_copy(update={"steps": 100}))


def test_a_picture_is_drawn_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """With guidance, as it is served: what the nets raise then is told."""
    asked = []

    def draw(_: object, __: object, how: generation_specs.Sampling, seed: int) -> object:
        asked.append((how.steps, how.guidance_scale, seed))
        raise RuntimeError("sizes differ")

    monkeypatch.setattr(sampling, "draw", draw)
    with pytest.raises(errors.InvalidConfigError, match="sizes differ"):
        trial.check_sampling(tiny.by_class(), SAMPLING)
    assert asked == [(2, 2.0, 0)]
