"""``report.html``: one file with the figures, the table and what is needed to repeat it.

Nothing is fetched: figures are inline SVG, there are no scripts, the style is in the page and
follows the reader's choice of light or dark.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from metaql.evaluation.blocks import Cell, Curve, written
from metaql.evaluation.plots import COLOURS, learning_curves, q_map, q_table, to_svg
from metaql.evaluation.summary import DIFFERENCE, Findings
from metaql.files import write_file


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """One lifetime on one environment."""

    env: str
    returns: Float[np.ndarray, " E"]
    lengths: Int[np.ndarray, " E"]
    q: Float[np.ndarray, "S A"]
    """What the agent believes of every action at the end."""
    grid: tuple[str, ...] = ()
    """The map, where there is one (letters as in `plots.q_map`)."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything the page shows."""

    title: str
    summary: str
    findings: Findings
    adaptation: Adaptation | None
    command: str
    """The command line that repeats it."""
    config: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=dict)

    def html(self) -> str:
        """The page."""
        parts = (
            f"<h1>{escape(self.title)}</h1><p>{escape(self.summary)}</p>",
            _table(self.findings),
            _curves(self.findings),
            "" if self.adaptation is None else _adaptation(self.adaptation),
            _repeat(self),
        )
        return _PAGE.format(title=escape(self.title), style=_style(), body="\n".join(parts))

    def write(self, path: Path) -> Path:
        """Write the page (whole or not at all) and return its path."""
        write_file(path, self.html().encode())
        return path


def lake_grid(terminates: Sequence[bool], width: int) -> tuple[str, ...]:
    """The letters of a frozen lake: start first, goal last, holes where else an episode ends.

    Args:
        terminates: by cell, row by row.
        width: cells per row.

    Example:
        >>> lake_grid([False, True, False, True], 2)
        ('SH', 'FG')
    """
    letters = ["H" if end else "F" for end in terminates]
    letters[0], letters[-1] = "S", "G"
    return tuple("".join(letters[i : i + width]) for i in range(0, len(letters), width))


def _table(found: Findings) -> str:
    names = (*found.blocks, DIFFERENCE)
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = []
    for row in found.learners:
        gap = found.differences.get(row.name)
        cells = "".join(f"<td>{_cell(cell)}</td>" for cell in row.cells)
        cells += "<td></td>" if gap is None else f"<td>{_cell(gap)}</td>"
        body.append(f'<tr><th scope="row">{escape(row.name)}</th>{cells}</tr>')
    for row in found.levels:
        value = f'<td colspan="{len(row.cells)}">{row.cells[0]} (exact)</td><td></td>'
        body.append(f'<tr class="level"><th scope="row">{escape(row.name)}</th>{value}</tr>')
    return (
        f"<h2>Table</h2><div class=wide><table><caption>{escape(found.score.capitalize())} by "
        f"block of episodes, mean of {found.runs} lifetimes; below it the 95% interval over "
        "lifetimes. The last column is over all episodes, in the same tasks."
        f'</caption><thead><tr><th scope="col">episodes</th>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    mean, *limits = cell.written()
    return f"<b>{mean}</b> <small>{' to '.join(limits)}</small>" if limits else f"<b>{mean}</b>"


def _curves(found: Findings) -> str:
    recent = " Mean of the last three episodes ended; after its last episode a learner keeps it."
    kinds = (
        ("episodes", "episode of the lifetime", found.by_episode, ""),
        ("steps", "environment steps of the lifetime", found.by_steps, recent),
    )
    figures = []
    for name, label, curves, note in kinds:
        if not curves:
            continue
        figure = learning_curves(curves, found.level_values(), x_label=label, y_label=found.score)
        last = "; ".join(
            f"{who} ends at {written(curve.mean[-1])[0]}" for who, curve in curves.items()
        )
        known = "; ".join(f"{who} is {written(at)[0]}" for who, at in found.level_values().items())
        words = f"{found.score} against {name}. {last}. {known}."
        caption = f"{found.score.capitalize()} against {name}, with 95% intervals.{note}"
        figures.append(_figure(to_svg(figure, name=name, description=words), caption, _key(curves)))
    return "<h2>Learning curves</h2>" + "".join(figures)


def _adaptation(life: Adaptation) -> str:
    """One real lifetime: the returns as they came, and the Q it ended with."""
    pairs = zip(life.returns, life.lengths, strict=True)
    items = "".join(
        f"<li><b>{value:g}</b> <small>{steps} steps</small></li>" for value, steps in pairs
    )
    if life.grid:
        drawn = q_map(life.q, life.grid)
        caption = (
            "Learned Q over the map. Each cell is four triangles, one per move asked for (ice may "
            "turn it); the arrow is the greedy action. Nothing is chosen in holes and at the goal."
        )
    else:
        drawn = q_table(life.q)
        caption = "Learned Q by state and action; the dot is the greedy action."
    svg = to_svg(drawn, name="q", description=_q_words(life))
    return (
        f"<h2>One lifetime on {escape(life.env)}</h2><p>Return of each episode, in order:</p>"
        f"<ol class=lives>{items}</ol>{_figure(svg, caption)}"
    )


def _q_words(life: Adaptation) -> str:
    best = np.where(np.isfinite(life.q), life.q, -np.inf).argmax(-1)
    listed = ", ".join(f"{s}: {a}" for s, a in enumerate(best[:100]))
    return f"Heat map of the learned Q. Greedy action by state: {listed}."


def _repeat(report: Report) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>'
        for name, value in report.versions.items()
    )
    config = json.dumps(report.config, indent=2, default=str)
    return (
        f"<h2>Repeat it</h2><pre><code>{escape(report.command)}</code></pre>"
        f"<details><summary>Configuration</summary><pre>{escape(config)}</pre></details>"
        "<details><summary>Versions</summary><div class=wide><table><caption>Software and machine."
        f"</caption><tbody>{rows}</tbody></table></div></details>"
    )


def _key(curves: Mapping[str, Curve]) -> str:
    """The names with their colours, for narrow screens where the labels are out of sight."""
    items = "".join(
        f'<li style="--own:var(--c{index % len(COLOURS)})">{escape(name)}</li>'
        for index, name in enumerate(curves)
    )
    return f"<ul class=key aria-hidden=true>{items}</ul>"


def _figure(svg: str, caption: str, key: str = "") -> str:
    words = f"<figcaption>{escape(caption)}{key}</figcaption>"
    return f"<figure><div class=wide>{svg}</div>{words}</figure>"


def _style() -> str:
    """The style sheet; curve colours are lighter on a dark page."""
    light = "".join(f"--c{index}:{colour};" for index, colour in enumerate(COLOURS))
    dark = "".join(f"--c{index}:{colour};" for index, colour in enumerate(_COLOURS_ON_DARK))
    return _STYLE.replace("/*light*/", light).replace("/*dark*/", dark)


_COLOURS_ON_DARK = (
    *("#5db7f0", "#ff8a4c", "#3ecfa3", "#e5a3c6", "#f2b52e", "#8fd0f5"),
    *("#c79bd9", "#c9a27e"),
)

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--page:#fff;--soft:#f2f4f7;--line:#ccd3db;/*light*/}
@media (prefers-color-scheme:dark){
:root{--ink:#e6e9ee;--page:#14171c;--soft:#20252d;--line:#3b444f;/*dark*/}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:52rem;padding:1rem;background:var(--page);color:var(--ink);
font:1rem/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;line-height:1.25}h2{font-size:1.2rem;margin-top:2.2rem}
.wide{overflow-x:auto}figure{margin:1rem 0}figcaption,caption{font-size:.9rem;text-align:left}
caption{padding-bottom:.5rem}
svg{max-width:100%;height:auto}
svg[aria-label^="Heat"]{max-width:min(100%,30rem)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .6rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}
th[scope=row],thead th:first-child{text-align:left}
tbody th{font-weight:normal}tbody tr:first-child th{font-weight:bold}
td small{display:block;white-space:nowrap;opacity:.8}
.level td{text-align:center}
pre{background:var(--soft);padding:.8rem;overflow-x:auto;border-radius:.4rem}
details{margin:.6rem 0}summary{cursor:pointer}
.lives{display:flex;flex-wrap:wrap;gap:.4rem;padding:0;list-style:none}
.lives li{background:var(--soft);border-radius:.4rem;padding:.2rem .55rem}
thead th{white-space:nowrap}
.key{display:none;list-style:none;padding:0;margin:.4rem 0;flex-wrap:wrap;gap:.2rem 1rem}
.key li::before{content:"";display:inline-block;width:1.2em;height:.25em;margin-right:.4em;
vertical-align:middle;background:var(--own)}
@media (max-width:40rem){.key{display:flex}th,td{padding:.3rem .25rem}td small{font-size:.7rem}
tbody th{font-size:.9rem}.wide>svg:not([aria-label^="Heat"]){max-width:none;width:36rem}}
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
