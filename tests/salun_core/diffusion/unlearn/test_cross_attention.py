import pytest

from salun_core.diffusion.unlearn import cross_attention
from tests.salun_core.diffusion import tiny


@pytest.mark.parametrize(
    ("text", "phrases", "expected"),
    [
        ("a red circle", ["circle"], [3]),
        ("Circle of circle", ["CIRCLE"], [1, 3]),  # in any case, at every place
        ("a red circle", ["red circle"], [2, 3]),  # several tokens
        ("red circle red", ["red circle"], [1, 2]),  # not where only a part stands
        ("red circle of blue", ["blue", "circle"], [2, 4]),
        ("a blue cross", ["circle"], [1, 2, 3]),  # names none: every word, no special token
        ("a a a a a circle", ["circle"], [6]),  # the last place before the end
    ],
)
def test_places_of_words(text: str, phrases: list[str], expected: list[int]) -> None:
    (marked,) = cross_attention.places(tiny.by_text(), [text], phrases)
    assert marked.nonzero().flatten().tolist() == expected


def test_layers_are_found_in_order() -> None:
    generator = tiny.by_text()
    found = cross_attention.layers_of(generator, "test")
    assert len(found) == 4
    assert all(name.endswith(".attn2") for name in found)
    assert list(found) == [n for n, _ in generator.denoiser.named_modules() if n in found]
