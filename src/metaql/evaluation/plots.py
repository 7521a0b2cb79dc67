"""Figures: learning curves with intervals, and a learned Q as a map or as a table.

Every function returns a matplotlib ``Figure`` made through the object API: no global state, no
window. `to_svg` makes it an inline SVG whose colours follow the page (light or dark).
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metaql.evaluation.blocks import Curve, written

INK = "#010203"
"""Colour of text and axes; `to_svg` replaces it by the colour of the page's text."""
COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    *("#7a3f8c", "#7d5a3c"),
)
"""Okabe and Ito's palette, told apart by colour-blind readers, too, and two more; first the agent's."""
MARKERS = "osD^vPX<"
LAKE_ARROWS = ("←", "↓", "→", "↑")
"""FrozenLake's actions in order."""
_LEVEL_DASHES = ((6, 2), (2, 2), (8, 2, 2, 2))
_TRIANGLES = {
    "←": ((0, 0), (0, 1)),
    "↓": ((0, 1), (1, 1)),
    "→": ((1, 1), (1, 0)),
    "↑": ((1, 0), (0, 0)),
}
"""The two corners of a cell (x, y; y down) that make a triangle with its centre."""
_CENTRED: dict[str, Any] = {"ha": "center", "va": "center"}
_PLATE = {"facecolor": "#ffffff", "edgecolor": "none", "alpha": 0.85, "pad": 1.0}


def learning_curves(
    curves: Mapping[str, Curve], levels: Mapping[str, float], *, x_label: str, y_label: str
) -> Figure:
    """Curves with shaded intervals, known levels as dashed lines, each labelled at its right end.

    Args:
        curves: by learner; the first is drawn heavier, as the one the figure is about.
        levels: exact values that do not depend on experience.
        x_label: with its unit.
        y_label: with its unit.
    """
    figure = Figure(figsize=(7.6, 4.2))
    axes = figure.add_axes((0.09, 0.14, 0.60, 0.82))
    labels: list[tuple[float, str, str]] = []
    for index, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[index % len(COLOURS)]
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(
            curve.x,
            curve.mean,
            color=colour,
            linewidth=2.6 if index == 0 else 1.5,
            marker=MARKERS[index % len(MARKERS)],
            markersize=4,
            markevery=max(1, len(curve.x) // 10),
        )
        labels.append((float(curve.mean[-1]), name, colour))
    for index, (name, value) in enumerate(levels.items()):
        dashes = _LEVEL_DASHES[index % len(_LEVEL_DASHES)]
        axes.axhline(value, color=INK, linewidth=1, dashes=dashes, zorder=1)
        labels.append((value, f"{name} {written(value)[0]}", INK))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.margins(x=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    _bare(axes)
    _label_ends(axes, labels)
    return figure


def _label_ends(axes: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Names at the right end of their lines, moved apart where they would overlap."""
    if not labels:
        return
    ordered = sorted(labels)
    bottom, top = axes.get_ylim()
    at = spread([(value - bottom) / (top - bottom) for value, _, _ in ordered], gap=0.062)
    for place, (value, name, colour) in zip(at, ordered, strict=True):
        axes.annotate(
            name,
            xy=(1.0, (value - bottom) / (top - bottom)),
            xytext=(1.045, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=colour,
            fontsize=9,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.7,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0.0, 0.5),
            },
        )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Move sorted places in [0, 1] as little as needed to lie at least ``gap`` apart.

    Example:
        >>> spread([0.0, 0.0, 1.0], gap=0.25)
        [0.0, 0.25, 1.0]
    """
    moved: list[float] = []
    for place in places:
        moved.append(place if not moved else max(place, moved[-1] + gap))
    ceiling = max(1.0, gap * (len(moved) - 1))
    for index in reversed(range(len(moved))):
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - gap
    return moved


def q_map(
    q: Float[np.ndarray, "S A"], rows: Sequence[str], *, arrows: Sequence[str] = LAKE_ARROWS
) -> Figure:
    """Q over a grid: each cell is four triangles, one per move, and an arrow where the greedy goes.

    Args:
        q: values by cell (row by row) and action.
        rows: the map, a letter per cell: ``S`` start, ``H`` hole, ``G`` goal, ``#`` wall.
        arrows: the direction of each action; actions beyond these are not drawn.
    """
    height, width = len(rows), len(rows[0])
    open_cells = np.array([letter not in "HG#" for letter in "".join(rows)])
    colours, scale = _colours(q[open_cells, : len(arrows)])
    figure = Figure(figsize=(1.0 + 0.95 * width, 0.4 + 0.95 * height))
    axes = figure.add_axes((0.02, 0.03, 0.80, 0.94))
    for cell in range(height * width):
        y, x = divmod(cell, width)
        letter = rows[y][x]
        if letter in "HG#":
            _special_cell(axes, x, y, letter)
            continue
        known = q[cell, : len(arrows)]
        shades = [colours(scale(value)) for value in known]
        corners = [[(x + 0.5, y + 0.5), *_at(x, y, _TRIANGLES[a])] for a in arrows[: len(known)]]
        axes.add_collection(PolyCollection(corners, facecolors=shades, edgecolors=shades))
        axes.plot(x + 0.5, y + 0.5, "o", color="#ffffff", markersize=17, alpha=0.85)
        axes.text(x + 0.5, y + 0.5, _sign(known, arrows), **_CENTRED, fontsize=16, color="#000000")
        if letter == "S":
            axes.text(
                x + 0.5, y + 0.86, "start", **_CENTRED, fontsize=9, color="#000000", bbox=_PLATE
            )
    for line in range(max(height, width) + 1):
        axes.plot([min(line, width)] * 2, [0, height], color=INK, linewidth=0.6)
        axes.plot([0, width], [min(line, height)] * 2, color=INK, linewidth=0.6)
    axes.set(xlim=(-0.02, width + 0.02), ylim=(height + 0.02, -0.02), aspect="equal")
    axes.set_axis_off()
    _colour_bar(figure, colours, scale)
    return figure


def _at(x: int, y: int, corners: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(x + dx, y + dy) for dx, dy in corners]


def _special_cell(axes: Axes, x: int, y: int, letter: str) -> None:
    """A hole, the goal or a wall: no action is chosen there."""
    face, ink, word = {
        "H": ("none", INK, "hole"),
        "G": ("#007a58", "#ffffff", "goal"),
        "#": ("#777777", "#ffffff", "wall"),
    }[letter]
    square = [[(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)]]
    axes.add_collection(PolyCollection(square, facecolors=[face], edgecolors=["none"]))
    axes.text(x + 0.5, y + 0.5, word, **_CENTRED, fontsize=12, color=ink)


def _sign(values: Float[np.ndarray, " A"], arrows: Sequence[str]) -> str:
    """The greedy arrow, or a dot where all known values are the same."""
    known = np.where(np.isfinite(values), values, -np.inf)
    return "·" if np.ptp(known) == 0 else arrows[int(known.argmax())]


def q_table(q: Float[np.ndarray, "S A"], *, action_names: Sequence[str] = ()) -> Figure:
    """Q as a heat map, actions down and states across; the greedy action of a state carries a dot.

    Args:
        q: values by state and action; padded or unknown entries may be infinite or NaN.
        action_names: default: the numbers.
    """
    num_states, num_actions = q.shape
    colours, scale = _colours(q)
    width = float(np.clip(1.6 + 0.28 * num_states, 4.0, 11.0))
    figure = Figure(figsize=(width, 1.1 + 0.34 * num_actions))
    axes = figure.add_axes((0.09, 0.3, 0.76, 0.64))
    shown = np.ma.masked_invalid(q.T)
    axes.pcolormesh(shown, cmap=colours, norm=scale, rasterized=num_states > 100)
    if num_states <= 100:
        best = np.where(np.isfinite(q), q, -np.inf).argmax(-1)
        axes.plot(np.arange(num_states) + 0.5, best + 0.5, "o", color="#d55e00", markersize=4)
    names = action_names or [str(a) for a in range(num_actions)]
    axes.set_yticks(np.arange(num_actions) + 0.5, list(names))
    axes.invert_yaxis()
    axes.set(xlabel="state", ylabel="action")
    _bare(axes)
    _colour_bar(figure, colours, scale)
    return figure


def _colours(q: Float[np.ndarray, "S A"]) -> tuple[Colormap, Normalize]:
    """Map and scale of the finite values; cividis reads the same to colour-blind eyes."""
    finite = q[np.isfinite(q)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return mpl.colormaps["cividis"], Normalize(low, high if high > low else low + 1.0)


def _colour_bar(figure: Figure, colours: Colormap, scale: Normalize) -> None:
    axes = figure.add_axes((0.87, 0.12, 0.025, 0.76))
    edges = np.linspace(float(scale.vmin or 0.0), float(scale.vmax or 0.0), 33)
    axes.pcolormesh(
        [0, 1], edges, ((edges[1:] + edges[:-1]) / 2)[:, None], cmap=colours, norm=scale
    )
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.set_title("Q", color=INK, fontsize=10)
    _bare(axes)


def _bare(axes: Axes) -> None:
    """No box, ink of the page."""
    axes.patch.set_alpha(0.0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)


def to_svg(figure: Figure, *, name: str, description: str) -> str:
    """The figure as one ``<svg>`` element to put into a page.

    Args:
        figure: any figure of this module.
        name: letters and dashes, unique in the page (it prefixes every id).
        description: what a reader who cannot see the figure should know.
    """
    buffer = io.StringIO()
    figure.patch.set_alpha(0.0)
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "sans-serif",
    }
    with mpl.rc_context(settings):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'url\(#([^)]+)\)|href="#([^"]+)"', lambda hit: _prefixed(hit, name), svg)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    for index, colour in enumerate(COLOURS):
        svg = svg.replace(f": {colour}", f": var(--c{index}, {colour})")
    svg = svg.replace(f": {INK}", ": currentColor")
    opening = f'<svg role="img" aria-label="{html.escape(description, quote=True)}"'
    return svg.replace("<svg", opening, 1)


def _prefixed(hit: re.Match[str], name: str) -> str:
    inside, link = hit.groups()
    return f"url(#{name}-{inside})" if inside else f'href="#{name}-{link}"'
