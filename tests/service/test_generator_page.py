"""The page of a report on a diffusion model: pictures, what is kept, where the forgotten goes."""

import io
from typing import Any

import PIL.Image
import pytest

from service import generator_plots, report_page
from tests.service import pages


@pytest.fixture
def concept() -> dict[str, Any]:
    """A passed report on a concept, with what a worker writes."""
    return {
        "model": "icons",
        "version": 2,
        "kind": "concept",
        "method": {"method": "salun", "targets": "replacement", "mask": "saliency", "steps": 120},
        "metrics": {
            "unlearning_accuracy": {"value": 1.0, "target": 1.0, "passed": True},
            "paraphrase_recall": {"value": 0.01, "target": 0.0, "passed": True},
        },
        "evidence": {
            "original": {"unlearning_accuracy": 0.04},
            "concepts": [{"concept": "twemoji", "replacement": "noto"}],
            "groups": {
                "noto": {"before": 0.97, "after": 0.95},
                "cat <b>": {"before": 1.0, "after": 0.5},
            },
            "forget_goes_to": {"before": {"twemoji": 0.96}, "after": {"noto": 0.9, "flat": 0.1}},
            "pictures": [{"name": "forgotten", "digest": "ab" * 32, "size": 3}],
        },
        "verdict": {"passed": True, "failures": []},
    }


def png() -> bytes:
    written = io.BytesIO()
    PIL.Image.new("RGB", (4, 4)).save(written, "PNG")
    return written.getvalue()


def test_page_names_the_concept_and_shows_the_pictures(concept: dict[str, Any]) -> None:
    page = report_page.render(concept, {"forgotten_prompts": png()})
    parsed = pages.Parsed(page)

    assert "Version 2 of icons has forgotten the concept “twemoji”" in parsed.text
    assert "120 steps" in parsed.text
    (image,) = parsed.named("img")
    assert image["alt"] == "forgotten prompts"
    assert str(image["src"]).startswith("data:image/png;base64,iVBOR")


def test_page_says_what_was_measured_and_what_not(concept: dict[str, Any]) -> None:
    concept["evidence"]["claim"] = "Measured: one thing. Not measured: <another>."
    parsed = pages.Parsed(report_page.render(concept))

    assert parsed.text.count("Measured: one thing. Not measured: <another>.") == 1
    header = parsed.text.partition("Gates")[0]
    assert "Not measured" in header


def test_page_says_that_pictures_are_not_kept_any_more(concept: dict[str, Any]) -> None:
    gone = "1 of the pictures are not kept any more"

    assert gone in pages.Parsed(report_page.render(concept)).text
    assert gone not in pages.Parsed(report_page.render(concept, {"forgotten": png()})).text


def test_plots_show_every_net_and_group(concept: dict[str, Any]) -> None:
    plots = generator_plots.all_plots(concept)

    assert [plot.title for plot in plots] == [
        "What the forgotten prompts bring now",
        "What is kept",
    ]
    assert "cat &lt;b&gt;" in plots[1].panels[0].svg
    assert [key.name for key in plots[0].keys] == ["before", "after"]


def test_nothing_is_drawn_for_a_report_without_the_numbers(concept: dict[str, Any]) -> None:
    concept["evidence"] = {"groups": None, "forget_goes_to": {"before": "no"}}

    assert generator_plots.all_plots(concept) == []
    assert "has forgotten a concept" in report_page.render(concept)
