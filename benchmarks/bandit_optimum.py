"""The most that few pulls of arms nobody knows can earn in expectation: what no learner is above.

Arms pay 1 with a probability uniform in [0, 1], as in RL2's benchmark (Duan et al. 2016, arXiv 1611.02779,
section 3.1). Exact, by backward induction over what is known of the arms. As arms are alike until pulled,
a state is how often every arm pulled so far won and lost, in no order; ten pulls leave some thousand of them,
a hundred pulls far too many.

    python benchmarks/bandit_optimum.py
"""

from __future__ import annotations

import argparse
from functools import cache

from _common import emit

Known = tuple[tuple[int, int], ...]
"""Wins and losses of every arm pulled so far, sorted."""


def bayes_optimal_total(arms: int, pulls: int) -> float:
    """Expected sum of ``pulls`` rewards of who chooses best among ``arms`` arms."""

    @cache
    def best(known: Known, left: int) -> float:
        if not left:
            return 0.0
        fresh = ((0, 0),) if len(known) < arms else ()
        return max(pulled(known, arm, left) for arm in {*known, *fresh})

    def pulled(known: Known, arm: tuple[int, int], left: int) -> float:
        others = list(known)
        if arm in others:
            others.remove(arm)
        won, lost = arm
        chance = (won + 1) / (won + lost + 2)
        win, loss = ((won + 1, lost), (won, lost + 1))
        after = (best(tuple(sorted([*others, each])), left - 1) for each in (win, loss))
        return chance * (1.0 + next(after)) + (1.0 - chance) * next(after)

    return best((), pulls)


def main() -> None:
    """Parse, compute, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pulls", type=int, default=10)
    options = parser.parse_args()
    totals = {arms: round(bayes_optimal_total(arms, options.pulls), 4) for arms in (5, 10, 50)}
    emit("bandit_optimum", pulls=options.pulls, totals=totals)


if __name__ == "__main__":
    main()
