"""Iterations of a training that writes figures, checkpoints and what Ctrl-C left of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from metaql.runs import MetricsWriter

OnProgress = Callable[[str, float, Mapping[str, Any]], None]
"""Called with the stage, the share of it done and current figures."""
CHECKPOINT_FOLDER = "checkpoint"
"""Where a run folder keeps its checkpoints."""
STAGE = "meta-training"
Training = TypeVar("Training")


class Plan(NamedTuple):
    """How many iterations, and how often to save."""

    done: int
    total: int
    every: int


def iterate(
    training: Training,
    plan: Plan,
    step: Callable[[Training, int], tuple[Training, Mapping[str, Any]]],
    save: Callable[[Training, int], None],
    *,
    run: Path | None,
    on_progress: OnProgress,
) -> Training:
    """Go on from ``plan.done`` to ``plan.total``; Ctrl-C saves and goes through.

    Args:
        training: the state.
        plan: how long.
        step: one iteration: state and figures after it.
        save: keeps a state and the number of iterations behind it.
        run: folder for ``metrics.jsonl``; None: nowhere.
        on_progress: hears of every iteration.
    """
    reached = (training, plan.done)  # one name: Ctrl-C finds both or neither
    on_progress(STAGE, plan.done / plan.total, {})
    writer = contextlib.nullcontext() if run is None else MetricsWriter(run, keep=plan.done)
    with writer as metrics:
        try:
            while reached[1] < plan.total:
                after, row = step(*reached)
                if metrics is not None:
                    metrics.write(row)
                reached = (after, reached[1] + 1)
                if reached[1] % plan.every == 0 and reached[1] < plan.total:
                    save(*reached)
                on_progress(STAGE, reached[1] / plan.total, row)
        except KeyboardInterrupt:
            save(*reached)
            raise
        save(*reached)
    return reached[0]
