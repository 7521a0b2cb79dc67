"""``metaql families``: what there is to train on."""

from __future__ import annotations

from metaql.cli.options import Common


def families(*, common: Common | None = None) -> None:
    """List the task families, with the options and baselines of each.

    Returns per episode on held-out tasks of the default instance: acting at random, the best policy
    that does not adapt, the optimum.

    Example: metaql families --json
    """
    common = common or Common()
    output = common.output()
    from metaql.tasks.families import FAMILIES, RECURRENT_FAMILIES

    entries = {
        name: {
            "summary": family.summary,
            "shares_states": getattr(family, "shares_states", False),
            "finite": name in FAMILIES,
            "options": _options(family),
            "suits": _suits(family),
            "baselines": dict(family.baselines),
        }
        for name, family in sorted({**FAMILIES, **RECURRENT_FAMILIES}.items())
    }
    output.table(
        ("family", "random", "non-adaptive", "optimum", "what it is"),
        [
            (name, *_baselines(entry["baselines"]), entry["summary"])
            for name, entry in entries.items()
        ],
        left=(4,),
    )
    output.line("\nOptions and their defaults (--option key=value):")
    for name, entry in entries.items():
        given = ", ".join(f"{key}={value}" for key, value in entry["options"].items())
        output.line(f"{name}: {given or 'no options'}")
    output.line("\nSettings of the agent recurrent that hold for a family, unless given:")
    for name, entry in entries.items():
        if entry["suits"]:
            output.line(f"{name}: {', '.join(f'{k}={v}' for k, v in entry['suits'].items())}")
    output.document(entries)


def _options(family: type) -> dict[str, object]:
    """Constructor arguments and their defaults (``...`` where one must be given)."""
    import inspect

    parameters = inspect.signature(family).parameters.values()
    missing = inspect.Parameter.empty
    return {p.name: "..." if p.default is missing else p.default for p in parameters}


def _suits(family: type) -> dict[str, object]:
    """Settings that suit its usual instance."""
    from metaql.tasks.families.base import TaskFamily

    made = None if "..." in _options(family).values() else family()
    return dict(made.suits) if isinstance(made, TaskFamily) else {}


def _baselines(baselines: dict[str, float]) -> tuple[str, str, str]:
    known = (baselines.get(name) for name in ("random", "non_adaptive", "optimum"))
    random, fixed, best = ("" if value is None else f"{value:.3f}" for value in known)
    return random, fixed, best
