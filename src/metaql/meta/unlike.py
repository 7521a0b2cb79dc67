"""Whether a task is unlike those an agent was trained on: its sizes, and whether it keeps its rules.

An agent for finite MDPs relies on one thing: what follows an action depends on the state alone, today
as yesterday. Then the outcomes of one pair, in the order in which they came, are exchangeable, and how
often an outcome follows upon the same outcome is known from their counts: told backwards, with counts
c left, the outcome k is followed by another k with probability (c_k - 1) / (n - 1), whatever the task.
Differences from that are a martingale with steps below 1, whose tails Freedman's inequality bounds
(Freedman 1975, "On tail probabilities for martingales", theorem 1.6). Repeats that are too many say
that the task changes, too few that something hidden alternates.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from metaql.types import Transition

FALSE_ALARMS = 0.01
"""Probability of a warning where nothing is wrong, at most (four tails share it)."""
_FEWEST = 16
"""Outcomes of an arm from which on their order is judged."""


class Repeats(NamedTuple):
    """Repeated outcomes beyond what their order can explain, and the variance of that."""

    excess: float = 0.0
    variance: float = 0.0

    def tail(self) -> float:
        """Bound of the probability of an excess this far from zero, on this side."""
        far = abs(self.excess)
        return math.exp(-(far**2) / (2.0 * (self.variance + far / 3.0))) if far else 1.0


class Diary:
    """Outcomes of every pair in the order in which they came."""

    def __init__(self) -> None:
        self.pages: dict[tuple[int, int], list[tuple[int, bool, float]]] = defaultdict(list)

    def write(self, last: Transition) -> None:
        """Note one step."""
        outcome = (int(last.next_state), bool(last.terminated), float(last.reward))
        self.pages[int(last.state), int(last.action)].append(outcome)

    def ways(self) -> Repeats:
        """Repeats of where actions led and whether that was the end."""
        return self._sum([[row[:2] for row in page] for page in self.pages.values()])

    def rewards(self) -> Repeats:
        """Repeats of rewards above, or not above, the median of the same pair and outcome."""
        found: list[list[bool]] = []
        for page in self.pages.values():
            by_outcome: dict[tuple[int, bool], list[float]] = defaultdict(list)
            for row in page:
                by_outcome[row[:2]].append(row[2])
            for values in by_outcome.values():
                middle = sorted(values)[len(values) // 2]
                found.append([value >= middle for value in values])
        return self._sum(found)

    def _sum(self, pages: list[list[Any]]) -> Repeats:
        """Of all pages together; of those of a bandit, each up to a length that is a power of two.

        Whoever leaves an arm when it fails ends its page with what made them leave: in short pages, and
        at the end of all, repeats are too few though nothing is wrong.
        """
        if len({state for state, _ in self.pages}) == 1:
            pages = [page[: 1 << (len(page).bit_length() - 1)] for page in pages]
            pages = [page for page in pages if len(page) >= _FEWEST]
        parts = [page_repeats(page) for page in pages]
        return Repeats(sum(part.excess for part in parts), sum(part.variance for part in parts))


def page_repeats(outcomes: Sequence[Hashable]) -> Repeats:
    """Repeats of one pair's outcomes.

    Example:
        >>> page_repeats(["left", "left", "right", "right"])
        Repeats(excess=0.6666666666666667, variance=0.22222222222222224)
    """
    left, number = Counter(outcomes), len(outcomes)
    excess = variance = 0.0
    for before, after in zip(outcomes[-2::-1], outcomes[:0:-1], strict=True):
        chance = (left[after] - 1) / (number - 1)
        excess += (before == after) - chance
        variance += chance * (1.0 - chance)
        left[after], number = left[after] - 1, number - 1
    return Repeats(excess, variance)


def warnings_for(
    trained: Mapping[str, Sequence[int]], sizes: Mapping[str, int], diary: Diary | None = None
) -> list[str]:
    """Plain sentences on what is unlike training; none: nothing was noticed.

    Args:
        trained: name of a size -> smallest and largest trained on.
        sizes: "states", "actions", "horizon", ... of the task.
        diary: what happened.
    """
    found = _unusual_sizes(trained, sizes)
    if diary is None:
        return found
    for what, repeats in (("where actions lead", diary.ways()), ("rewards", diary.rewards())):
        if repeats.tail() < FALSE_ALARMS / 4.0:
            found.append(_unruly(what, repeats))
    return found


def _unusual_sizes(trained: Mapping[str, Sequence[int]], sizes: Mapping[str, int]) -> list[str]:
    found = []
    for name, size in sizes.items():
        low, high = trained.get(name, (size, size))
        if not low <= size <= high:
            found.append(f"{name} {size} (trained with {_span(low, high)})")
    if not found:
        return []
    return [
        f"The sizes of the task are unlike training: {', '.join(found)}. "
        "Expect slower learning and intervals that are less sure."
    ]


def unusual_lifetime(card: Mapping[str, Any], episodes: int) -> list[str]:
    """A plain sentence where lifetimes in training were of other lengths.

    Args:
        card: of an agent that was meta-trained on lifetimes of so many episodes.
        episodes: of the lifetime asked for.
    """
    low, high = card.get("train", {}).get("episodes", (episodes, episodes))
    if low <= episodes <= high:
        return []
    return [f"Trained on lifetimes of {_span(low, high)} episodes, asked for {episodes}."]


def _span(low: int, high: int) -> str:
    return f"{low} to {high}" if low < high else str(high)


def _unruly(what: str, repeats: Repeats) -> str:
    deviations = repeats.excess / math.sqrt(repeats.variance + 1e-9)
    why = (
        "it seems to change while it is being learned (not stationary)"
        if repeats.excess > 0
        else "it seems to depend on something that the state does not show (not Markov)"
    )
    return (
        f"This looks unlike a finite MDP as to {what}: {why}; the same outcome came twice in a row "
        f"{abs(repeats.excess):.1f} times {'more' if repeats.excess > 0 else 'less'} often than chance "
        f"({abs(deviations):.1f} standard deviations). Do not rely on the intervals."
    )
