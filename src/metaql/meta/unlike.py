"""Whether a task is unlike those an agent was trained on: its sizes, and whether it keeps its rules.

An agent for finite MDPs relies on one thing: what follows an action depends on the state alone, today
as yesterday. Then the outcomes of one pair, in the order in which they came, are exchangeable, and how
often an outcome follows upon the same outcome is known from their counts: told from either end, with counts
c left, the outcome k is followed by another k with probability (c_k - 1) / (n - 1), whatever the task.
Differences from that are a martingale with steps below 1, whose tails Freedman's inequality bounds
(Freedman 1975, "On tail probabilities for martingales", theorem 1.6). Told backwards it shows what becomes
sure, told forwards what no longer is. Repeats that are too many in all, where the mean over all orders is
the sum of c_k (c_k - 1) / n, say that the task changes, too few that something hidden alternates.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from metaql.types import Transition

FALSE_ALARMS = 0.01
"""Probability of a warning where nothing is wrong, at most."""
_TAILS = 8
"""Tails that share it: of two statistics, told from two ends, on two sides."""
_FEWEST = 32
"""Outcomes of a pair from which on their order is judged."""


class Walk(NamedTuple):
    """Repeats beyond what counts led to expect, told from one end, and the variance of that."""

    excess: float = 0.0
    variance: float = 0.0

    def tail(self) -> float:
        """Bound of the probability of an excess this far from zero, on this side."""
        far = abs(self.excess)
        return math.exp(-(far**2) / (2.0 * (self.variance + far / 3.0))) if far else 1.0


class Repeats(NamedTuple):
    """How outcomes repeat each other, of all pairs."""

    excess: float
    """More of them than in the mean over all orders of the same outcomes."""
    backwards: Walk
    forwards: Walk

    def tail(self) -> float:
        """The smaller bound."""
        return min(self.backwards.tail(), self.forwards.tail())


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
        return _sum([[row[:2] for row in page] for page in self.pages.values()])

    def rewards(self) -> Repeats:
        """Repeats of rewards above, or not above, the median of the same pair and outcome."""
        found: list[list[bool]] = []
        for page in self.pages.values():
            by_outcome: dict[tuple[int, bool], list[float]] = defaultdict(list)
            for row in page:
                by_outcome[row[:2]].append(row[2])
            for values in by_outcome.values():
                middle = sorted(values)[len(values) // 2]
                # Of more than half the same least ones all would be at least the median.
                least = middle == min(values)
                found.append([value > middle if least else value >= middle for value in values])
        return _sum(found)


def _sum(pages: list[list[Any]]) -> Repeats:
    """Of all pages together, each up to a length that is a power of two.

    Whoever leaves an action when it fails ends its page with what made them leave: in short pages, and at the
    end of all, repeats are too few though nothing is wrong.
    """
    pages = [page[: 1 << (len(page).bit_length() - 1)] for page in pages if len(page) >= _FEWEST]
    walks = [[page_walk(page) for page in pages], [page_walk(page[::-1]) for page in pages]]
    backwards, forwards = (
        Walk(sum(each.excess for each in parts), sum(each.variance for each in parts))
        for parts in walks
    )
    return Repeats(sum(map(excess_of, pages)), backwards, forwards)


def excess_of(outcomes: Sequence[Hashable]) -> float:
    """Repeats of one pair's outcomes, minus their mean over all orders.

    Example:
        >>> excess_of(["left", "left", "right", "right"])
        1.0
    """
    counts = Counter(outcomes).values()
    repeated = sum(a == b for a, b in itertools.pairwise(outcomes))
    return repeated - sum(count * (count - 1) for count in counts) / len(outcomes)


def page_walk(outcomes: Sequence[Hashable]) -> Walk:
    """Repeats of one pair's outcomes, told backwards.

    Example:
        >>> page_walk(["left", "left", "right", "right"])
        Walk(excess=0.6666666666666667, variance=0.22222222222222224)
    """
    left, number = Counter(outcomes), len(outcomes)
    excess = variance = 0.0
    for before, after in zip(outcomes[-2::-1], outcomes[:0:-1], strict=True):
        chance = (left[after] - 1) / (number - 1)
        excess += (before == after) - chance
        variance += chance * (1.0 - chance)
        left[after], number = left[after] - 1, number - 1
    return Walk(excess, variance)


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
        if repeats.tail() < FALSE_ALARMS / _TAILS:
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
    why = (
        "it seems to change while it is being learned (not stationary)"
        if repeats.excess > 0
        else "it seems to depend on something that the state does not show (not Markov)"
    )
    return (
        f"This looks unlike a finite MDP as to {what}: {why}; the same outcome came twice in a row "
        f"{abs(repeats.excess):.1f} times {'more' if repeats.excess > 0 else 'less'} often than by chance. "
        "Do not rely on the intervals."
    )
