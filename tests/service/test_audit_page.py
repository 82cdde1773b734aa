"""The page of an audit: every net and metric, error bars, what is missing, hostile names."""

from typing import Any

from service import audit_page, audit_plots
from tests.service import pages

SWEPT = ("unlearning_accuracy", "test_accuracy", "forget_holdout_auc")


def net(name: str, density: float | None, value: float, sd: float | None = None) -> dict[str, Any]:
    metrics = {metric: {"value": value, "sd": sd} for metric in (*SWEPT, "average_gap")}
    return {"name": name, "density": density, "runs": 1 if sd is None else 2, "metrics": metrics}


def audit(**changes: Any) -> dict[str, Any]:
    return {
        "model": "digits",
        "version": 2,
        "base_version": 1,
        "forget_count": 20,
        "recipe": {"method": "salun", "epochs": 4},
        "training": {"method": "retrain", "epochs": 31},
        "average_gap": 0.0123,
        "average_gap_floor": 0.0045,
        "warnings": [],
        "nets": [
            net("original", None, 0.11),
            net("version", 0.5, 0.512),
            net("retrained", None, 0.523),
            net("retrained_again", None, 0.534),
            net("random_mask", 0.5, 0.545, 0.0123),
            net("no_mask", 1.0, 0.556, 0.02),
            net("density_0.1", 0.1, 0.567, 0.03),
            net("density_0.3", 0.3, 0.578, 0.04),
        ],
        "ulira": {
            "pairs": 4,
            "pairs_reused": 0,
            "metrics": {"ulira_auc": {"value": 0.6125, "target": 0.5, "standard_error": 0.05}},
        },
        "seconds": {"retraining": 12.5},
        "evidence": {"pools": {"forget": 20}, "run": {"attempt": 1}},
        "finished_at": "2026-03-04T05:06:07Z",
        **changes,
    }


def test_every_net_stands_in_the_table_with_its_spread() -> None:
    page = pages.Parsed(audit_page.render(audit()))
    for shown in (
        "Version 2 of digits, audited",
        "1.23 points from a net retrained",
        "0.45 points from the first",
        "retrained again",
        "random mask",
        "density 0.3",
        "0.545",
        "± 0.012",
        "0.6125",
        "with 4 pairs of shadow nets",
        "2026-03-04 05:06 UTC",
        "31",
    ):
        assert shown in page.text, shown
    headings = [text for text in page.texts if text == "version"]
    assert headings
    assert page.named("script") == []


def test_the_sweep_is_drawn_for_each_metric_and_the_gaps_for_each_net() -> None:
    masks, gaps = audit_plots.all_plots(audit())
    assert [panel.title for panel in masks.panels] == list(SWEPT)
    assert [key.name for key in masks.keys] == [
        "saliency mask", "the version", "random mask", "no mask", "retrained", "retrained again",
    ]  # fmt: skip
    assert len(gaps.panels) == 1
    for shown in ("version", "random mask", "density 0.1", "54.5"):
        assert shown in gaps.panels[0].svg


def test_parts_that_were_not_asked_for_are_left_out() -> None:
    nets = [net("original", None, 0.1), net("version", 0.5, 0.5)]
    nothing = {"average_gap": None, "average_gap_floor": None, "training": None, "ulira": None}
    page = audit_page.render(audit(nets=nets, **nothing))
    assert "No net was retrained" in page
    assert "<svg" not in page
    assert "shadow nets" not in page
    alone = [*nets, net("random_mask", 0.5, 0.5)]
    (masks,) = audit_plots.all_plots(audit(nets=alone, **nothing))
    assert [key.name for key in masks.keys] == ["the version", "random mask"]


def test_a_reference_that_is_none_is_told_and_names_are_only_text() -> None:
    page = audit_page.render(audit(warnings=["it was trained otherwise"], model="<script>x"))
    assert "it was trained otherwise" in page
    assert "<script>" not in page
    assert audit_page.render(audit()) == audit_page.render(audit())
