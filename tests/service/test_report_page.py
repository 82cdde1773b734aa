"""The page of a report: its numbers, what is missing or unknown, hostile names, the same bytes."""

import concurrent.futures
import json
import re
from typing import Any

import pytest

from service import report_page, report_plots, report_values
from tests.service import pages

EDGES = [float(edge) for edge in range(-4, 5)]


def gated(value: float, target: float, tolerance: float, error: float | None, **more: Any) -> Any:
    return {
        "value": value,
        "target": target,
        "tolerance": tolerance,
        "standard_error": error,
        "allowed": tolerance + 1.64 * (error or 0.0),
        "passed": True,
        "n": 50,
        "detail": {},
        **more,
    }


@pytest.fixture
def samples() -> dict[str, Any]:
    """A passed report over single samples, with all that a worker writes."""
    return {
        "version": 2,
        "created_at": "2026-11-24T11:18:17.123Z",
        "manifest_digest": "ab" * 32,
        "model": "digits",
        "kind": "samples",
        "base_version": 1,
        "method": {"method": "salun", "targets": "matched", "mask": "saliency", "epochs": 8},
        "approximate": "approximate unlearning (SalUn, arXiv 2310.12508); not certified",
        "metrics": {
            "mia_efficacy_svc": {
                "value": 0.15,
                "target": 0.1342,
                "standard_error": 0.0475,
                "tolerance": None,
                "allowed": None,
                "passed": None,
                "n": 60,
                "detail": {},
            },
            "forget_holdout_auc": gated(0.45951, 0.5, 0.05, 0.0402),
            "unlearning_accuracy": gated(
                0.0167, 0.0158, 0.03, 0.0179, detail={"per_class_accuracy": {"0": 0.9}}
            ),
            "retain_accuracy": gated(
                0.9988, 1.0, 0.01, 0.002, detail={"per_class_accuracy": {"0": 1.0, "1": 0.9}}
            ),
            "test_accuracy": gated(
                0.9711, 0.9755, 0.01, 0.007, detail={"per_class_accuracy": {"0": 0.9, "1": 0.8}}
            ),
            "max_class_drop": gated(
                0.0109, 0.0, 0.03, 0.0184, detail={"drops": {"test": {"0": -0.025, "1": 0.1}}}
            ),
            "frozen_weights_unchanged": gated(1.0, 1.0, 0.0, None),
        },
        "evidence": {
            "original": {"forget_holdout_auc": 0.5604, "test_accuracy": 0.9755},
            "histograms": {
                "bin_edges": EDGES,
                "before": {
                    "forget": [0, 0, 0, 0, 0, 2, 6, 2],
                    "holdout": [0, 0, 1, 2, 4, 2, 1, 0],
                    "retain": [0, 0, 0, 0, 1, 4, 4, 1],
                },
                "after": {
                    "forget": [0, 0, 1, 2, 4, 2, 1, 0],
                    "holdout": [0, 0, 1, 2, 4, 2, 1, 0],
                    "retain": [0, 0, 0, 0, 1, 4, 4, 1],
                },
            },
            "mask": {
                "kind": "saliency",
                "density": 0.497,
                "layer_density": {"layer10.weight": 0.25, "layer2.weight": 1.0, "fc.bias": 0.5},
            },
            "weights_changed": {"share": 0.4968, "per_layer": {"fc.bias": 0.5}},
            "method": {
                "learning_rate": 0.05 / 3,
                "rate_probe": {"learning_rate": 0.05 / 3, "tried": [{"held": False}]},
                "steps": 112,
                "losses": [{"retain": 0.9, "forget": None}, {"retain": 0.5, "forget": 2.0}],
            },
            "labels": ["eight", "five"],
            "seed": 77,
            "spec": {"density": 0.5, "line_search": True},
            "pools": {"forget": 60, "holdout": 447},
            "unseen": {
                "pool": "holdout+test",
                "cross_fitted": True,
                "n": 897,
                "n_per_class_min": 82,
            },
            "versions": {"torch": "2.14.1"},
            "target_digest": "874300d8" * 8,
            "changed_buffers": [f"bn{number}.running_mean" for number in range(40)],
            "forget_count": 60,
            "previous_count": 3,
            "run": {"job_id": "01a20d47", "attempt": 1, "fence": 3},
        },
        "seconds": {"mask": 0.102, "unlearn": 5.345, "verify": 0.469},
        "verdict": {"passed": True, "failures": []},
    }


@pytest.fixture
def whole_class(samples: dict[str, Any]) -> dict[str, Any]:
    """A failed report over a class, beside a retrained net."""
    failure = "unlearning_accuracy: got 0.9000, expected at least 0.9900"
    evidence = samples["evidence"]
    evidence["histograms"]["retrained"] = evidence["histograms"]["after"]
    evidence["retrained"] = {"unlearning_accuracy": {"value": 0.9993}}
    samples["metrics"]["unlearning_accuracy"] = gated(
        0.9, 1.0, 0.01, None, passed=False,
        detail={"per_class_accuracy": {"1": 0.1}, "predicted_as": {"0": 0.875, "1": 0.125}},
    )  # fmt: skip
    verdict = {"passed": False, "failures": [failure]}
    return {**samples, "kind": "class", "verdict": verdict}


def row(page: pages.Parsed, metric: str) -> list[str]:
    """The texts of a metric's row, its meaning left out."""
    start = page.texts.index(metric)
    found = page.texts[start + 1 :]
    return found[1 : next(i for i, text in enumerate(found) if text in ENDS) + 1]


ENDS = {"✓ passed", "✗ failed", "reported"}


def test_a_passed_report_says_so_and_shows_every_number(samples: dict[str, Any]) -> None:
    page = pages.Parsed(report_page.render(samples))
    assert "Version 2 of digits has forgotten 60 samples" in page.texts
    assert "✓ Passed" in page.texts
    assert "All 6 gates passed." in page.text
    assert "Approximate unlearning (SalUn, arXiv 2310.12508); not certified." in page.texts
    assert {"1 → 2", "single samples", "2026-11-24 11:18 UTC"} <= set(page.texts)
    assert "salun, matched, saliency mask, 8 epochs" in page.texts
    assert page.texts[page.texts.index("learning rate") + 1] == "0.01667"
    # 0.05 + 1.64 · 0.0402 = 0.1159
    assert row(page, "forget_holdout_auc") == [
        "0.5604", "0.4595", "0.5", "± 0.116", "0.05 + 1.64 × 0.0402", "✓ passed",
    ]  # fmt: skip
    assert row(page, "mia_efficacy_svc") == ["—", "0.15", "0.1342", "—", "reported"]
    assert row(page, "frozen_weights_unchanged") == ["—", "1", "1", "± 0", "✓ passed"]
    assert "0.5 means they look alike" in page.text
    assert "a leak within an AUC of 0.5 ± 0.12 between forgotten and unseen samples" in page.text


def test_without_the_gate_nothing_is_said_of_leaks(samples: dict[str, Any]) -> None:
    del samples["metrics"]["forget_holdout_auc"]
    assert "a leak" not in report_page.render(samples)


def test_a_failed_report_says_which_gate_and_that_it_is_not_served(
    whole_class: dict[str, Any],
) -> None:
    page = pages.Parsed(report_page.render(whole_class))
    headline = "Version 2 of digits was to forget the class “five” (60 samples) and did not pass"
    assert headline in page.texts
    assert "✗ Not passed" in page.texts
    assert "1 of 6 gates failed. A version that fails a gate is never served" in page.text
    assert whole_class["verdict"]["failures"][0] in page.texts
    assert row(page, "unlearning_accuracy") == ["—", "0.9993", "0.9", "1", "± 0.01", "✗ failed"]
    assert {"Before", "After", "Retrained without the data"} <= set(page.texts)
    assert {"87.5%", "12.5%", "itself"} <= set(page.texts)


def test_every_plot_is_drawn_with_its_own_figures(samples: dict[str, Any]) -> None:
    page = pages.Parsed(report_page.render(samples))
    drawn = [attributes["aria-label"] for attributes in page.named("div") if "role" in attributes]
    assert drawn == [
        "How sure the net is: Before",
        "How sure the net is: After",
        "Accuracy by class: On the retain set",
        "Accuracy by class: On the test set",
        "Loss while unlearning",
        "Where the time went",
        "What the mask let change",
    ]
    assert len(page.named("svg")) == len(drawn)
    assert {"5.34 s", "0.102 s", "0.469 s", "5.92 seconds of work in all"} <= {
        text.partition(";")[0] for text in page.texts
    }
    assert {"+2.5", "−10.0"} <= set(page.texts)  # points on the test set: less the drops
    assert page.text.index("layer2.weight") < page.text.index("layer10.weight")
    identifiers = [found["id"] for _, found in page.elements if "id" in found]
    assert len(set(identifiers)) == len(identifiers)


def test_the_evidence_is_kept_and_what_is_long_is_cut(samples: dict[str, Any]) -> None:
    page = pages.Parsed(report_page.render(samples))
    for text in (
        "77",
        "874300d8" * 8,
        "ab" * 32,
        "2.14.1",
        "447",
        "holdout+test",
        "82",
        "01a20d47",
        "112",
        "0.4968",
    ):
        assert text in page.texts, text
    assert "bn11.running_mean and 28 more" in page.text
    assert "bin_edges" not in page.text


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"metrics": {}, "evidence": {}, "seconds": {}, "verdict": {}},
        {"metrics": None, "evidence": None, "seconds": None, "verdict": "passed", "kind": "class"},
        {"metrics": {"odd": 3}, "evidence": {"mask": None, "histograms": {"bin_edges": []}}},
        {"evidence": {"histograms": {"bin_edges": EDGES, "before": {"forget": [1, 2]}}}},
        {"evidence": {"histograms": {"bin_edges": EDGES, "after": {"forget": [0] * 8}}}},
        {"evidence": {"method": {"losses": [None, {"retain": None}, 3]}, "labels": "abc"}},
        {"metrics": {"retain_accuracy": {"detail": {"per_class_accuracy": {"7": 0.5}}}}},
        {"seconds": {"mask": 0.0, "unlearn": None, "verify": "long"}, "created_at": "yesterday"},
    ],
)
def test_whatever_is_missing_is_left_out(report: dict[str, Any]) -> None:
    page = pages.Parsed(report_page.render(report))
    assert "No verdict" in page.texts
    assert "No gate was applied." in page.texts
    assert "Approximate unlearning; not certified." in page.texts
    assert "None" not in page.text


def test_unknown_metrics_evidence_and_nets_are_shown(samples: dict[str, Any]) -> None:
    samples["metrics"]["a_new_one"] = {"value": 0.123456, "passed": False}
    samples["evidence"]["shadow_models"] = {"count": 64, "deep": {"er": [1, 2.5]}}
    samples["evidence"]["histograms"]["random mask"] = samples["evidence"]["histograms"]["after"]
    page = pages.Parsed(report_page.render(samples))
    assert "0.1235" in page.texts
    assert {"shadow_models", "count", "64", "deep.er", "1, 2.5", "random mask"} <= set(page.texts)


def test_many_classes_and_layers_stay_a_page(samples: dict[str, Any]) -> None:
    """Of a thousand classes the most changed are shown; of a thousand layers some are named."""
    accuracy = {str(label): 0.8 for label in range(1000)}
    drops = {label: 0.5 if label == "777" else 0.0 for label in accuracy}
    metrics = samples["metrics"]
    metrics["test_accuracy"]["detail"] = {"per_class_accuracy": accuracy}
    metrics["max_class_drop"]["detail"] = {"drops": {"test": drops}}
    layers = {f"block{number}.weight": 0.5 for number in range(1000)}
    samples["evidence"]["mask"]["layer_density"] = layers
    text = report_page.render(samples)
    page = pages.Parsed(text)
    assert {"class 777", "−50.0"} <= set(page.texts)
    assert "Shown are the 20 of 1000 classes that changed most." in page.text
    assert len(text) < 600_000


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$\\frac{$",
    "{{ 7 * 7 }}",
    'id="x" url(#y) #d55e00',
    "数字",
    "⠁braille",
    "line\nbreak\x00\x1b",
    "x" * 300,
    "&amp; & </svg>",
]


def test_hostile_names_are_text_and_nothing_else(whole_class: dict[str, Any]) -> None:
    usual = {tag for tag, _ in pages.Parsed(report_page.render(whole_class)).elements}
    evidence, metrics = whole_class["evidence"], whole_class["metrics"]
    numbered = {str(number): 0.5 for number in range(len(HOSTILE))}
    evidence["labels"] = HOSTILE
    metrics["test_accuracy"]["detail"]["per_class_accuracy"] = numbered
    metrics["unlearning_accuracy"]["detail"]["per_class_accuracy"] = numbered
    evidence["mask"]["layer_density"] = dict.fromkeys(HOSTILE, 0.5)
    evidence["histograms"][HOSTILE[0]] = evidence["histograms"]["after"]
    whole_class["model"] = HOSTILE[1]
    whole_class["verdict"]["failures"] += HOSTILE
    for name in HOSTILE:
        metrics[name] = {"value": name}
        evidence[name] = {name: name}
    page = pages.Parsed(report_page.render(whole_class))
    tags = {tag for tag, _ in page.elements}
    assert tags <= usual
    assert not tags & {"script", "iframe", "object", "embed", "link", "img", "base", "form"}
    for tag, attributes in page.elements:
        assert not any(key.startswith("on") for key in attributes), tag
    for name in HOSTILE:
        assert page.texts.count(" ".join(name.split())) >= 5, name


def test_names_stand_in_the_plots_as_they_are(whole_class: dict[str, Any]) -> None:
    """Also those for which matplotlib's font has no characters, and those that look like TeX."""
    whole_class["evidence"]["labels"] = ["数字⠁", "$x^2$"]
    for plot in (report_plots.class_accuracy, report_plots.receivers):
        drawn = plot(whole_class)
        assert drawn is not None
        for panel in drawn.panels:
            shown = re.findall(r"<text[^>]*>([^<]*)</text>", panel.svg)
            assert {"数字⠁", "$x^2$"} <= set(shown)


def test_nothing_is_loaded_from_elsewhere(samples: dict[str, Any]) -> None:
    text = report_page.render(samples)
    page = pages.Parsed(text)
    policy = page.named("meta")[1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert (policy["content"] or "").startswith("default-src 'none'; style-src 'unsafe-inline'")
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "@import" not in text


def test_the_same_report_gives_the_same_bytes_in_any_thread_and_order(
    whole_class: dict[str, Any],
) -> None:
    first = report_page.render(whole_class)
    again = json.loads(json.dumps(reordered(whole_class)))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        pages = list(pool.map(report_page.render, [whole_class, again, whole_class, again]))
    assert set(pages) == {first}


def reordered(value: Any) -> Any:
    """The same JSON with its keys the other way round, as a database may give it back."""
    if not isinstance(value, dict):
        return value
    return {key: reordered(value[key]) for key in reversed(value)}


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        (0.5, 0.5),
        (True, None),
        ("1", None),
        (None, None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
    ],
)
def test_a_number_is_a_finite_one(value: object, number: float | None) -> None:
    assert report_values.number(value) == number
