"""Drawing one panel of a report's page: a small figure, and its SVG to stand inside HTML.

Colours become CSS variables: the page decides what they are, in light and in dark. Text stays text.
Safe in threads: every figure is its own, and what matplotlib keeps for all is set once, on import.
"""

import dataclasses
import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib import axes, figure, font_manager, ticker
from matplotlib.backends import backend_svg

mpl.rcParams["svg.hashsalt"] = "salun"  # the same report gives the same bytes
mpl.rcParams["svg.fonttype"] = "none"  # text, not outlines: it can be read aloud and searched

# Okabe and Ito's palette, which colour-blind people can tell apart; values are for light pages.
COLOURS = {
    "ink": "#1b1c1e",
    "muted": "#5f6469",
    "grid": "#d9dce0",
    "forget": "#d55e00",
    "holdout": "#0072b2",
    "retain": "#8a8f95",
    "before": "#a9aeb4",
    "after": "#009e73",
    "bar": "#3a7ca8",
}
_WIDTH_INCHES = 4.2
_MOST_CHARACTERS = 28
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclasses.dataclass(frozen=True)
class Panel:
    """One picture: ``svg`` is markup of ours, in which every text is escaped."""

    title: str
    svg: str


def axes_of(height_inches: float, x: str = "", y: str = "") -> tuple[figure.Figure, axes.Axes]:
    """An empty figure with a transparent ground; ``x`` and ``y`` name the axes."""
    drawn = figure.Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
    drawn.patch.set_visible(False)
    axis = drawn.subplots()
    axis.patch.set_visible(False)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(COLOURS["muted"])
    axis.tick_params(color=COLOURS["muted"], labelcolor=COLOURS["ink"], labelsize=8.5)
    axis.set_xlabel(x, color=COLOURS["ink"], fontsize=8.5)
    axis.set_ylabel(y, color=COLOURS["ink"], fontsize=8.5)
    axis.set_axisbelow(True)
    axis.grid(axis="x", color=COLOURS["grid"], linewidth=0.6)
    return drawn, axis


def rows(axis: axes.Axes, names: Sequence[str], every: int = 1, size: float = 8.5) -> "StandIns":
    """Name every so many rows of horizontal bars, the first on top.

    What comes back goes to :func:`panel`.
    """
    stand_ins = StandIns()
    places = range(0, len(names), every)
    shown = [stand_ins.of(_shortened(names[place])) for place in places]
    axis.set_yticks(list(places), shown, parse_math=False, fontsize=size)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    return stand_ins


def percent_axis(axis: axes.Axes) -> None:
    """Shares from 0 to 1 along x, as percentages."""
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axis.xaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))


def note(axis: axes.Axes, x: float, y: float, text: str) -> None:
    """A small figure right of (x, y)."""
    axis.text(x, y, text, va="center", fontsize=7.5, color=COLOURS["muted"], parse_math=False)


def _shortened(name: str) -> str:
    """A name that leaves room for the bars; ends tell layers apart, so the middle goes."""
    if len(name) <= _MOST_CHARACTERS:
        return name
    half = _MOST_CHARACTERS // 2
    return f"{name[:half]}…{name[1 - half :]}"


class StandIns:
    """Characters that matplotlib's font lacks, drawn as Braille and put back into the SVG.

    The font only measures the text; the reader's browser has fonts for the rest. Without this,
    matplotlib warns of every name in Chinese.
    """

    _FIRST, _COUNT = 0x2800, 256

    def __init__(self) -> None:
        font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
        self._known = frozenset(font.get_charmap())
        self._by_character: dict[str, str] = {}

    def of(self, name: str) -> str:
        """The name with stand-ins; what cannot be printed becomes U+FFFD."""
        return "".join(self._one(character) for character in name)

    def put_back(self, text: str) -> str:
        """The characters for which stand-ins were drawn."""
        originals = {ord(stand_in): own for own, stand_in in self._by_character.items()}
        return text.translate(originals)

    def _one(self, character: str) -> str:
        if not character.isprintable():
            return "\ufffd"
        braille = self._FIRST <= ord(character) < self._FIRST + self._COUNT
        if ord(character) in self._known and not braille:
            return character
        used = len(self._by_character)
        if character not in self._by_character and used == self._COUNT:
            return "\ufffd"
        return self._by_character.setdefault(character, chr(self._FIRST + used))


def panel(drawn: figure.Figure, name: str, title: str, stand_ins: StandIns | None = None) -> Panel:
    """The figure as markup; ``name`` keeps its ids apart from those of the page's other panels."""
    written = io.StringIO()
    canvas: Any = backend_svg.FigureCanvasSVG(drawn)  # its methods have no types
    canvas.print_svg(written, metadata=_NO_METADATA)
    text = written.getvalue()
    return Panel(title, _inline(text if stand_ins is None else stand_ins.put_back(text), name))


_TAG = re.compile(r"<[^<>]+>")
_ID = re.compile(r'\bid="([^"]*)"')
_REFERENCE = re.compile(r"(url\(|href=\")#")
_FONT = re.compile(r"font-family: [^;\"]*;? ?")
_HEX = re.compile("|".join(COLOURS.values()))
_VARIABLES = {value: f"var(--{name})" for name, value in COLOURS.items()}
_SHEET = re.compile(r"<style[^>]*>[^<]*</style>")


def _inline(svg: str, name: str) -> str:
    """A whole SVG file as an element among others: own ids, the page's colours and fonts."""
    opening = re.search(r"<svg[^>]*>", svg)
    if opening is None:
        raise ValueError("got no <svg> element, expected matplotlib's output")
    box = re.search(r'viewBox="[^"]*"', opening.group())
    head = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box.group() if box else ""}'

    def own(found: re.Match[str]) -> str:
        tag = _ID.sub(rf'id="{name}-\1"', found.group())
        tag = _REFERENCE.sub(rf"\1#{name}-", tag)
        tag = _FONT.sub("", tag)
        return _HEX.sub(lambda colour: _VARIABLES[colour.group()], tag)

    rest = _TAG.sub(own, _SHEET.sub("", svg[opening.end() :]))
    return f'{head} aria-hidden="true" focusable="false">{rest.strip()}'
