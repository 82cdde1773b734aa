"""The report of models of which it is known what they draw."""

import copy
import io

import pytest
import torch
from PIL import Image

from salun_core import errors, generation_specs, masks, progress, specs
from salun_core.diffusion import (
    class_conditional,
    data,
    judge,
    membership,
    questions,
    text_to_image,
    verification,
)
from tests.salun_core.diffusion import ideal_judges, ideal_models

SAMPLING = generation_specs.Sampling(steps=2, guidance_scale=1.0, images=6)
CLASS = questions.of_class(["bar"], ["frame", "spot"], 6)
TEXTS = ideal_models.captioned(1, 0).texts
RED = specs.ConceptTarget(kind="concept", concept="red", replacement="green")


def subject(
    kind: specs.ForgetKind, samples: membership.SampleSets | None = None
) -> verification.Subject:
    family: generation_specs.GenerativeFamily = (
        "text_to_image" if kind == "concept" else "class_conditional_diffusion"
    )
    return verification.Subject(
        kind, family, None, generation_specs.default_spec(kind), samples=samples
    )


def without_bars(model: class_conditional.ClassConditional) -> class_conditional.ClassConditional:
    """The class "bar" now draws a spot."""
    net = copy.deepcopy(model.denoiser)
    with torch.no_grad():
        net.pictures[0] = net.pictures[2]  # type: ignore[index,operator]
    return model.with_denoiser(net)


def without_red(model: text_to_image.TextToImage) -> text_to_image.TextToImage:
    """ "red" now draws green; the planted word still draws red."""
    net = copy.deepcopy(model.denoiser)
    with torch.no_grad():
        for shape in ideal_models.SHAPES:
            green = net.pictures[ideal_models.text_row("green", shape)]  # type: ignore[index]
            net.pictures[ideal_models.text_row("red", shape)] = green  # type: ignore[operator]
    return model.with_denoiser(net)


def verify_class(
    unlearned: class_conditional.ClassConditional,
    report: progress.Progress = progress.silent,
    retrained: class_conditional.ClassConditional | None = None,
) -> verification.Verified:
    return verification.verify(
        ideal_models.told_classes(),
        unlearned,
        ideal_judges.of_classes(),
        CLASS,
        subject("class"),
        SAMPLING,
        report,
        retrained,
    )


@pytest.fixture(scope="module")
def of_concept() -> verification.Verified:
    original = ideal_models.told_texts()
    judge = ideal_judges.of_words()
    captions = [text for text in TEXTS if "red" in text]
    kept = [text for text in TEXTS if "red" not in text]
    asked = questions.of_concepts(judge, captions, kept, [RED], SAMPLING.images, 0)
    return verification.verify(
        original, without_red(original), judge, asked, subject("concept"), SAMPLING
    )


def test_the_original_has_forgotten_nothing_and_lost_nothing() -> None:
    found = verify_class(ideal_models.told_classes()).report
    values = {name: one.value for name, one in found.metrics.items()}
    assert values == {
        "frozen_weights_unchanged": 1.0,
        "retain_accuracy": 1.0,
        "max_group_drop": 0.0,
        "feature_distance": pytest.approx(0.0, abs=1e-6),
        "unlearning_accuracy": 0.0,
        "recognised_before": 1.0,
        "unconditional_recall": pytest.approx(values["unconditional_recall"]),
    }
    assert found.evidence["weights_changed"]["share"] == 0.0
    buffers = ideal_models.told_classes().denoiser.buffers()
    frozen = found.metrics["frozen_weights_unchanged"]
    assert frozen.n == sum(tensor.numel() for tensor in buffers)  # every weight was free


def test_a_class_that_draws_another_is_gone_and_the_rest_as_before() -> None:
    model = ideal_models.told_classes()
    found = verify_class(without_bars(model), retrained=without_bars(model)).report
    assert found.family == "class_conditional_diffusion"
    assert found.metrics["unlearning_accuracy"].value == 1.0
    assert found.metrics["unlearning_accuracy"].target == 1.0
    assert "for the class by its name" in found.evidence["claim"]
    assert found.metrics["retain_accuracy"].value == 1.0
    assert found.metrics["retain_accuracy"].target == 1.0
    assert found.evidence["forget_goes_to"] == {"before": {"bar": 1.0}, "after": {"spot": 1.0}}
    assert found.evidence["original"]["unlearning_accuracy"] == 0.0
    assert found.evidence["retrained"]["unlearning_accuracy"] == 1.0
    assert found.evidence["judge"]["digest"] == ideal_judges.of_classes().digest()


def test_a_damaged_neighbour_is_the_largest_drop() -> None:
    """Of two kept groups one is lost whole: accuracy (0 + 1) / 2, drop 1."""
    broken = without_bars(ideal_models.told_classes())
    with torch.no_grad():
        broken.denoiser.pictures[1] = broken.denoiser.pictures[2]  # type: ignore[index,operator]
    metrics = verify_class(broken).report.metrics
    assert metrics["retain_accuracy"].value == 0.5
    assert metrics["max_group_drop"].value == 1.0
    assert metrics["max_group_drop"].detail["group"] == "frame"
    assert metrics["feature_distance"].value > 0.0


def test_a_judge_that_does_not_see_it_before_is_found_out() -> None:
    """The original draws spots for the bar: nothing is recognised, so nothing can be forgotten."""
    blind = without_bars(ideal_models.told_classes())
    found = verification.verify(
        blind, blind.with_denoiser(copy.deepcopy(blind.denoiser)), ideal_judges.of_classes(), CLASS,
        subject("class"), SAMPLING,
    ).report  # fmt: skip
    assert found.metrics["unlearning_accuracy"].value == 1.0
    seen = found.metrics["recognised_before"]
    assert (seen.value, seen.target, seen.n) == (0.0, 1.0, 6)
    assert seen.detail["recall_per_concept"] == {"bar": 0.0}


def test_what_is_drawn_and_shows_nothing_known_is_said_so() -> None:
    """The class draws the upper half of a bar over the lower half of a frame."""
    strange = without_bars(ideal_models.told_classes())
    bar, frame = (ideal_models.picture("green", shape) for shape in ("bar", "frame"))
    with torch.no_grad():
        half = torch.cat([bar[:, :8], frame[:, 8:]], dim=1)
        strange.denoiser.pictures[0] = half  # type: ignore[operator]
    found = verify_class(strange).report
    assert found.evidence["forget_goes_to"]["after"] == {judge.NOTHING: 1.0}
    assert found.evidence["judge"]["may_refuse"] is True


def test_a_change_outside_the_mask_is_found() -> None:
    original, changed = ideal_models.told_classes(), without_bars(ideal_models.told_classes())
    nothing = masks.SaliencyMask(
        "saliency",
        {"pictures": masks.pack(torch.zeros(4, 3, 16, 16, dtype=torch.bool))},
        {"pictures": (4, 3, 16, 16)},
        0.5,
        0.0,
    )
    found = verification.verify(
        original, changed, ideal_judges.of_classes(), CLASS,
        verification.Subject(
            "class", "class_conditional_diffusion", nothing, generation_specs.default_spec("class")
        ),
        SAMPLING,
    )  # fmt: skip
    frozen = found.report.metrics["frozen_weights_unchanged"]
    values = sum(tensor.numel() for tensor in original.denoiser.state_dict().values())
    assert (frozen.value, frozen.n) == (0.0, values)


def test_every_step_is_reported_and_the_total_is_right() -> None:
    seen: list[tuple[int, int]] = []
    verify_class(ideal_models.told_classes(), report=lambda *step: seen.append(step))
    assert [step for step, _ in seen] == list(range(1, len(seen) + 1))
    assert {total for _, total in seen} == {len(seen)}


def test_a_cancelled_verification_stops() -> None:
    def stop(step: int, _total: int) -> None:
        if step == 3:
            raise errors.CancelledError

    with pytest.raises(errors.CancelledError):
        verify_class(ideal_models.told_classes(), report=stop)


def test_a_concept_is_gone_in_every_phrasing_and_the_rest_as_before(
    of_concept: verification.Verified,
) -> None:
    metrics = of_concept.report.metrics
    assert metrics["unlearning_accuracy"].value == 1.0
    assert metrics["retain_accuracy"].value == metrics["retain_accuracy"].target
    assert metrics["paraphrase_recall"].value == 0.0
    assert metrics["composition_shift"].value == 0.0
    after = of_concept.report.evidence["forget_goes_to"]["after"]
    assert after["green"] == 1.0
    assert "red" not in after
    assert "Not measured: other prompts" in of_concept.report.evidence["claim"]


def test_the_attack_brings_the_concept_back_by_the_planted_word(
    of_concept: verification.Verified,
) -> None:
    found = of_concept.report.metrics["adversarial_recall"]
    assert found.value == 1.0
    (search,) = found.detail["searches"]
    assert ideal_models.PLANTED in search["prefix"]
    assert search["loss"] < search["loss_without_prefix"]
    assert search["evaluations"] == found.detail["budget"]


def test_pictures_show_both_models_beside_each_other(of_concept: verification.Verified) -> None:
    assert set(of_concept.pictures) == {
        "forgotten", "kept", "paraphrases", "compositions", "unconditional",
    }  # fmt: skip
    for png in of_concept.pictures.values():
        with Image.open(io.BytesIO(png)) as opened:
            assert opened.format == "PNG"
            assert opened.width > 2 * 64


def test_the_same_job_gives_the_same_report_and_pictures() -> None:
    made = [verify_class(without_bars(ideal_models.told_classes())) for _ in range(2)]
    first, second = (one.report.model_dump(exclude={"seconds"}) for one in made)
    assert first == second
    assert made[0].pictures == made[1].pictures


def test_samples_are_told_from_unseen_ones_by_how_well_they_are_denoised() -> None:
    """The ideal model denoises its own pictures without loss and all others with some."""
    model = ideal_models.told_classes()
    known = ideal_models.labelled(6, 0)
    held = data.encode(model, ideal_models.labelled(6, 1))
    clean = model.denoiser.pictures.detach()[held.rows]  # type: ignore[operator]
    exact = data.EncodedSet(clean, held.rows, held.table, held.texts)
    asked = questions.of_samples(ideal_judges.of_classes(), known.texts, 4, 0)
    sets = membership.SampleSets(exact, held)
    found = verification.verify(
        model, model.with_denoiser(copy.deepcopy(model.denoiser)), ideal_judges.of_classes(),
        asked, subject("samples", samples=sets), SAMPLING,
    ).report  # fmt: skip
    assert found.metrics["forget_holdout_auc"].value == pytest.approx(1.0)
    assert found.metrics["forget_holdout_auc"].target == 0.5
    assert found.metrics["forget_holdout_auc"].detail["matched_by_text"] is True
    assert "unlearning_accuracy" not in found.metrics
    assert "near-copies of them can still be drawn; no prompt" in found.evidence["claim"]
    same = membership.forget_holdout_auc(
        membership.SampleSets(held, held), torch.ones(len(held)), torch.ones(len(held))
    )
    assert same.value == pytest.approx(0.5)


@pytest.mark.parametrize(("common", "matched"), [(1, False), (3, True)])
def test_a_text_that_few_share_does_not_speak_for_all(common: int, matched: bool) -> None:
    """All six forgotten samples are denoised better than all unseen ones: told from them anyhow."""
    model = ideal_models.told_classes()
    held = data.encode(model, ideal_models.labelled(6, 1))
    texts = ("bar", *(f"word {number}" for number in range(6 - common)))
    rows = torch.tensor([0] * common + list(range(1, 7 - common)))
    forget = data.EncodedSet(held.latents, rows, held.table[:1].expand(len(texts)), texts)
    unseen = data.EncodedSet(held.latents, torch.zeros(6).long(), held.table[:1], ("bar",))
    sets = membership.SampleSets(forget, unseen)
    found = membership.forget_holdout_auc(sets, torch.zeros(6), torch.ones(6))
    assert found.value == pytest.approx(1.0)
    assert found.detail["matched_by_text"] is matched
    assert found.n == (common if matched else 6)
    assert found.standard_error is not None
    assert 0.05 + 1.64 * found.standard_error < 0.5


def test_a_concept_that_is_still_drawn_is_not_lost_among_those_that_are_gone() -> None:
    """Frames became spots, bars stayed; asked for both, half of the pictures show what is asked."""
    model = ideal_models.told_classes()
    net = copy.deepcopy(model.denoiser)
    with torch.no_grad():
        net.pictures[1] = net.pictures[2]  # type: ignore[index,operator]
    asked = questions.of_class(["bar", "frame"], ["spot"], 6)
    found = verification.verify(
        model, model.with_denoiser(net), ideal_judges.of_classes(), asked, subject("class"),
        SAMPLING,
    ).report.metrics["unlearning_accuracy"]  # fmt: skip
    assert (found.value, found.n, found.comparisons) == (0.0, 6, 2)
    assert found.detail["concept"] == "bar"
    assert found.whole == 0.5
