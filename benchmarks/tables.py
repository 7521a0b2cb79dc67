"""Markdown tables of ``docs/results.md`` from the JSON documents in ``benchmarks/results``.

Replaces what stands between ``<!-- results: NAME -->`` and ``<!-- end: NAME -->``; nothing is typed by
hand, and a missing document leaves its table as it is.

    python benchmarks/tables.py
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "results.md"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table, numbers to the right."""
    names = list(head)
    lines = [names, ["---", *["--:"] * (len(names) - 1)], *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(found: dict[str, Any], digits: int = 2) -> str:
    """``0.66 (0.64 to 0.68)``."""
    mean, low, high = (found[name] for name in ("mean", "low", "high"))
    if low is None:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def default_map(found: dict[str, Any]) -> str:
    """Success by block on Gymnasium's own map, and regret."""
    lake = found["default"]
    parts = list(next(iter(lake["success"].values())))
    regret = {name: sum(each) for name, each in lake["regret_per_episode"].items()}
    rows = [
        [name, *(cell(each[part]) for part in parts), f"{regret[name]:.1f}"]
        for name, each in lake["success"].items()
    ]
    best = lake["levels"]["optimum"]
    for name, value in lake["levels"].items():
        rows.append(
            [f"{name} (exact)", *[f"{value:.3f}"] * len(parts), f"{20 * (best - value):.1f}"]
        )
    head = ["success in episodes", *parts, "regret of 20 episodes"]
    return f"{lake['runs']} lifetimes each.\n\n{table(head, rows)}"


def held_out(found: dict[str, Any]) -> str:
    """Normalised score on maps of the test split, and the placebo."""
    lakes = found["held_out"]
    rows = [
        [
            name,
            str(each["lifetimes_per_map"]),
            cell(each["success_11-20"]),
            cell(each["score_11-20"]),
            f"{sum(each['regret_per_episode']):.1f}",
        ]
        for name, each in lakes["learners"].items()
    ]
    floor, best = lakes["levels"]["best non-adaptive policy"], lakes["levels"]["optimum"]
    rows.append(
        ["best non-adaptive policy (exact)", "", f"{floor:.3f}", "0", f"{20 * (best - floor):.1f}"]
    )
    rows.append(["optimum (exact)", "", f"{best:.3f}", "1", "0.0"])
    head = ["", "lifetimes per map", "success, 11-20", "normalised score, 11-20", "regret of 20"]
    words = f"{lakes['maps']} maps drawn ({lakes['distinct_maps']} distinct)."
    return f"{words}\n\n{table(head, rows)}"


def speed(_: dict[str, Any]) -> str:
    """Throughput, latency and the quickstart, from four documents."""
    names = ("meta_training_throughput", "acting_latency", "tabular_throughput", "quickstart_time")
    training, acting, tabular, quickstart = (
        json.loads((RESULTS / f"{name}.json").read_text()) for name in names
    )
    stages = quickstart["compile_seconds"]
    ms = acting["milliseconds_per_step"]
    lives = training["lifetimes"]
    rows = [
        [
            f"meta-training, {lives} lifetimes, S = 25, A = 5, env steps/s",
            f"{training['env_steps_per_second']:,}",
            ">= 8,000",
        ],
        ["its compile time, s", f"{training['compile_seconds']:.0f}", ""],
        [
            "acting in Gymnasium's FrozenLake-v1, ms per step in all, median",
            f"{ms['total, median']:.2f}",
            "<= 1",
        ],
        ["of which the agent, median", f"{ms['agent, median']:.2f}", ""],
        ["first lifetime, compilation included, s", f"{acting['first_lifetime_seconds']:.1f}", ""],
        [
            f"tabular Q-learning, {tabular['agents']:,} agents, updates/s",
            f"{tabular['updates_per_second']:,}",
            ">= 4,000,000",
        ],
    ]
    rows += [
        ["the whole quickstart, s", f"{quickstart['seconds']:.0f}", "<= 300"],
        [
            f"of which tracing, lowering and compiling {quickstart['programs']} programs, s",
            f"{sum(stages.values()):.0f}",
            "<= 45",
        ],
    ]
    for name, each in tabular["peers"].items():
        rows.append([f"{name}, one agent, updates/s", f"{each['updates_per_second']:,}", ""])
    loads = [found["machine"]["load_average_1min"] for found in (training, acting, tabular)]
    cpus = tabular["machine"]["cpus"]
    words = (
        f"{cpus} CPU cores, shared with other work; one-minute load average at the end of each "
        f"measurement: {loads[0]} (meta-training), {loads[1]} (acting), {loads[2]} (tabular)."
    )
    return f"{words}\n\n{table(['what', 'measured', 'bar'], rows)}"


def random_mdps(found: dict[str, Any]) -> str:
    """Total reward of RL2's random MDPs: published, measured, and without the luck of the draw."""
    budgets = [str(n) for n in found["budgets"]]

    def flat(row: dict[str, Any]) -> list[str]:
        return [f"{row[n]:.1f}" if n in row else "" for n in budgets]

    rows = [[f"{name}, published", *flat(row)] for name, row in found["published"].items()]
    rows.append(["**bar**", *flat(found["bars"])])
    for name, row in found["rows"].items():
        rows.append([f"**{name}**", *(cell(row[n]["total"], 1) for n in budgets)])
        rows.append(["the same, luck removed", *(cell(row[n]["luck_removed"], 1) for n in budgets)])
        if all("minus_reference" in row[n] for n in budgets):
            paired = (cell(row[n]["minus_reference"], 1) for n in budgets)
            rows.append([f"the same, minus {found['reference']}", *paired])
    words = f"{found['trials']} tasks of the test split, each lived once, per number of episodes."
    return f"{words}\n\n{table(['total reward in n episodes', *budgets], rows)}"


def bandits(found: dict[str, Any]) -> str:
    """Total reward of bandits, as it was and without the luck of the draw."""
    parts = []
    for name, case in found["cases"].items():
        pulls = list(next(iter(case["rows"].values())))
        rows = [
            [
                row,
                *(
                    cell(each[n][which], 1) if n in each else ""
                    for n in pulls
                    for which in ("total", "luck_removed")
                ),
            ]
            for row, each in case["rows"].items()
        ]
        if case["bars"]:
            bars = (
                [f"{case['bars'][n]:.1f}", ""] if n in case["bars"] else ["", ""] for n in pulls
            )
            rows.append(["**bar**", *(entry for pair in bars for entry in pair)])
        heads = (head for n in pulls for head in (n, f"{n}, luck removed"))
        parts.append(table([f"{name}; pulls", *heads], rows))
    return f"{found['trials']} bandits per cell.\n\n" + "\n\n".join(parts)


def family_priors(found: dict[str, Any]) -> str:
    """What a prior of its own is worth to each family."""
    rows = [
        [
            name,
            f"{row['lifetimes']:,}",
            f"{row['own']:.2f}",
            f"{row['finite']:.2f}",
            f"{row['difference']:.2f} (+- {row['standard_error']:.2f})",
            f"{row['coverage']:.2f}",
            f"{row['coverage_as_finite']:.2f}",
            f"{row['seconds']:.0f}",
        ]
        for name, row in found["rows"].items()
    ]
    head = [
        "total of a lifetime",
        "lifetimes",
        "own prior",
        "`finite`",
        "difference",
        "coverage",
        "coverage, intervals of `finite`",
        "training, s",
    ]
    return table(head, rows)


def until_solved(found: dict[str, Any]) -> str:
    """Median episodes until a task is solved."""
    names = list(found["tasks"])
    rows: dict[str, list[str]] = {}
    for task in found["tasks"].values():
        for name, median in task["issue_3"].items():
            label = "**bar**" if name == "bar" else f"{name}, re-measured"
            rows.setdefault(label, []).append(f"{median:g}")
        for name, each in task["rows"].items():
            low, high = each["interval"]
            text = f"{each['median']:g} ({low:g} to {high:g}), {each['solved']} of {found['seeds']}"
            rows.setdefault(f"**{name}**", []).append(text)
    words = f"Cap {found['cap']} episodes; learners are told {found['told_episodes']}."
    body = table(["median episodes", *names], ([name, *row] for name, row in rows.items()))
    return f"{words}\n\n{body}"


def omnirl(found: dict[str, Any]) -> str:
    """Score at the bar."""
    rows = []
    for name, row in found["rows"].items():
        for learner, each in row["rows"].items():
            reached = each["reached_at"]
            rows.append(
                [
                    f"{name}: {learner}",
                    cell(each["at_bar"], 1),
                    f"{row['bar']:g}",
                    "never" if reached is None else str(reached),
                ]
            )
    return table(["% of oracle over random", "at the bar", "bar", "reached at"], rows)


def robustness(found: dict[str, Any]) -> str:
    """Score of every learner in every row, and whether the first agent is the first."""
    learners = list(next(iter(found["rows"].values()))["rows"])
    rows = []
    for name, row in found["rows"].items():
        agent = row["rows"][learners[0]]
        place = f"{agent['rank']}" + (", within the first's interval" if agent["first"] else "")
        place = "first" if agent["rank"] == 1 else place
        scores = (cell(row["rows"][each]["score"], 1) for each in learners)
        rows.append([name, *scores, place])
    words = f"{found['lifetimes']} lifetimes each; % of the oracle over random."
    return f"{words}\n\n{table(['', *learners, f'place of {learners[0]}'], rows)}"


def recurrent(found: dict[str, Any]) -> str:
    """Return of every episode, by family and by what it was measured on."""
    parts = []
    for name, row in found["rows"].items():
        cells = {where: each["by_episode"] for where, each in row["returns"].items()}
        count = len(next(iter(cells.values())))
        lines = [
            [where, *(_maybe(each) for each in by_episode), _maybe(row["returns"][where]["total"])]
            for where, by_episode in cells.items()
        ]
        if row["oracle"] is not None:
            lines.append(["knows the goal (exact)", *[f"{row['oracle']:.2f}"] * count, ""])
        head = [f"{name}; return in episode", *(str(1 + index) for index in range(count)), "all"]
        steps, seconds = row["train"]["env_steps"], sum(row["seconds"]) / len(row["seconds"])
        trained = len(row["seconds"])
        plural = "s" if trained > 1 else ""
        words = f"{trained} meta-training{plural} of {steps:,} steps, {seconds:.0f} s on a shared machine."
        parts.append(f"{words}\n\n{table(head, lines)}")
    return "\n\n".join(parts)


def recurrent_finite(found: dict[str, Any]) -> str:
    """Total reward through RecurrentQ beside RL2's published one."""
    lines = [
        [
            name,
            cell(row["total"], 1),
            f"{row['RL2']:.1f}",
            f"{row['optimum']:,.1f}",
            f"{row['train']['env_steps']:,}",
            f"{row['seconds']:.0f}",
        ]
        for name, row in found["rows"].items()
    ]
    head = ["total reward", "RecurrentQ", "RL2, published", "who knows", "steps", "seconds"]
    return f"{found['trials']:,} tasks a row, one meta-training each.\n\n{table(head, lines)}"


def hidden_physics(found: dict[str, Any]) -> str:
    """Return of every episode, who finds out beside who cannot and who is told."""
    lines = []
    for name, places in found["rows"].items():
        for where, row in places.items():
            returns = [
                ", ".join(f"{value:.0f}" for value in each) for each in row["by_episode"].values()
            ]
            score = cell({"mean": row["score"], "low": row["low"], "high": row["high"]})
            lines.append([f"{name}, {where}", *returns, score])
    head = ["", "RecurrentQ", "without an embedding", "told the physics", "score"]
    words = f"{found['env_steps']:,} steps for each learner; 256 tasks a row."
    return f"{words}\n\n{table(head, lines)}"


def _maybe(found: dict[str, Any]) -> str:
    """A cell, with an interval where there is one."""
    return cell({"low": None, "high": None, **found})


def beliefs(found: dict[str, Any]) -> str:
    """Coverage, odds and the placebo of every family."""
    rows = []
    for name, row in found["rows"].items():
        own, other = row["placebo"].values()
        rows.append(
            [
                name if row["trained_on"] else f"{name} (not trained on)",
                *(f"{row[key]:.2f}" for key in ("coverage", "promised_best", "greedy_is_best")),
                cell(own),
                cell(other),
            ]
        )
    head = ["", "coverage", "best, promised", "best, true", "score", "score of the placebo"]
    return f"{found['lifetimes']} lifetimes each.\n\n{table(head, rows)}"


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "default map": ("frozen_lake", default_map),
    "held-out maps": ("frozen_lake", held_out),
    "random mdps": ("random_mdps", random_mdps),
    "bandits": ("bandits", bandits),
    "family priors": ("family_priors", family_priors),
    "until solved": ("episodes_until_solved", until_solved),
    "beliefs": ("finite_beliefs", beliefs),
    "omnirl": ("omnirl_table", omnirl),
    "robustness": ("robustness", robustness),
    "recurrent": ("recurrent_q", recurrent),
    "recurrent finite": ("recurrent_finite", recurrent_finite),
    "hidden physics": ("hidden_physics", hidden_physics),
    "speed": ("tabular_throughput", speed),
}


def main() -> None:
    """Fill the page."""
    page = PAGE.read_text()
    for name, (document, render) in TABLES.items():
        path = RESULTS / f"{document}.json"
        if not path.is_file():
            print(f"{name}: no {path.name}, left as it is", file=sys.stderr)
            continue
        text = render(json.loads(path.read_text()))
        begin, end = f"<!-- results: {name} -->", f"<!-- end: {name} -->"
        pattern = re.escape(begin) + ".*?" + re.escape(end)
        whole = f"{begin}\n{text}\n{end}"
        page, count = re.subn(pattern, lambda _, whole=whole: whole, page, flags=re.DOTALL)
        print(f"{name}: {count} table", file=sys.stderr)
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
