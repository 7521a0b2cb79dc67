"""Bootstrap confidence intervals (Efron 1987, BCa), by ``scipy.stats.bootstrap``; Student's t of few values.

What is resampled are whole lifetimes or whole tasks, never single episodes: episodes of one
lifetime depend on each other. Intervals over several columns are pointwise.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import stats

from metaql.errors import UsageError

RESAMPLES = 2000
"""Enough that the seed moves a 95% limit by about 0.06 standard errors."""
_FEW = 20
"""Fewer values than these are not resampled: of five, what a bootstrap calls 95% holds for 85."""
_BATCH_BYTES = 2**25


class Interval(NamedTuple):
    """A mean with its confidence interval; arrays when there are several columns."""

    mean: Float[Any, ...]
    low: Float[Any, ...]
    high: Float[Any, ...]


def mean_interval(
    values: ArrayLike, confidence: float = 0.95, seed: int = 0, *, resamples: int = RESAMPLES
) -> Interval:
    """Mean over the first axis with its BCa bootstrap interval; of fewer than 20 values, Student's t.

    A column whose values are all equal gets that value as mean and limits: the data show no spread
    (0 successes of N are compatible with a success rate up to about 3/N).

    Args:
        values: ``[N]`` or ``[N, ...]``, one row per lifetime or task.
        confidence: of the two-sided interval, in (0, 1).
        seed: of the resampling.
        resamples: bootstrap resamples.

    Returns:
        Floats for ``[N]``, else arrays of shape ``[...]``. Limits are NaN when N is 1.

    Raises:
        UsageError: no values, values that are not finite, or a confidence outside (0, 1).
    """
    rows = _checked(values, confidence)
    if 2 <= len(rows) < _FEW:
        return _students(rows, confidence)
    return _interval((rows,), _mean_of_all, confidence, seed, resamples)


def normalised_score(
    adapted: ArrayLike,
    floor: ArrayLike,
    ceiling: ArrayLike,
    confidence: float = 0.95,
    seed: int = 0,
    *,
    resamples: int = RESAMPLES,
) -> Interval:
    """``(sum adapted - sum floor) / (sum ceiling - sum floor)``, the tasks resampled together.

    A ratio of sums, not a mean of ratios: a task on which ceiling and floor nearly agree cannot
    dominate.

    Args:
        adapted: ``[N]``, mean return per task of what is measured.
        floor: ``[N]``, of the non-adaptive policy on the same tasks (scores 0).
        ceiling: ``[N]``, of the optimum on the same tasks (scores 1).
        confidence: of the two-sided interval, in (0, 1).
        seed: of the resampling.
        resamples: bootstrap resamples.

    Raises:
        UsageError: as `mean_interval`, lengths differ, or the ceiling's sum is not above the floor's.
    """
    data = tuple(_checked(part, confidence) for part in (adapted, floor, ceiling))
    shapes = [part.shape for part in data]
    if len(set(shapes)) > 1 or data[0].ndim != 1:
        raise UsageError("Scores need one value per task in each part.", f"Got shapes {shapes}.")
    low, high = data[1].sum(), data[2].sum()
    if high <= low or np.isclose(low, high, rtol=1e-12, atol=0.0):
        raise UsageError(
            "A normalised score needs a ceiling above the floor.",
            f"They sum to {high:g} and {low:g} over {len(data[0])} tasks.",
            "Use tasks on which adapting can help.",
        )
    return _interval(data, _ratio, confidence, seed, resamples, paired=True)


def _students(rows: np.ndarray, confidence: float) -> Interval:
    mean, error = rows.mean(0), stats.sem(rows, axis=0)
    reach = np.where(_spread(rows), stats.t.ppf(0.5 + confidence / 2.0, len(rows) - 1) * error, 0.0)
    return Interval(*(_scalar(limit) for limit in (mean, mean - reach, mean + reach)))


def _mean_of_all(sample: np.ndarray, axis: int) -> np.ndarray:
    return np.mean(sample, axis=axis)


def _ratio(adapted: np.ndarray, floor: np.ndarray, ceiling: np.ndarray, axis: int) -> np.ndarray:
    gain, room = (np.sum(part - floor, axis=axis) for part in (adapted, ceiling))
    return gain / room


def _checked(values: ArrayLike, confidence: float) -> np.ndarray:
    rows = np.asarray(values, np.float64)
    if rows.ndim == 0 or rows.size == 0:
        raise UsageError("An interval needs at least one value.", f"Got shape {rows.shape}.")
    if not np.isfinite(rows).all():
        bad = int((~np.isfinite(rows)).sum())
        raise UsageError("Values must be finite.", f"{bad} of {rows.size} are NaN or infinite.")
    if not 0.0 < confidence < 1.0:
        raise UsageError("`confidence` must be in (0, 1).", f"Got {confidence}.", "Use 0.95.")
    return rows


def _spread(rows: np.ndarray) -> np.ndarray:
    """Whether the values of each column differ."""
    return (rows != rows[:1]).any(axis=0)


def _scalar(value: np.ndarray) -> Any:
    return float(value) if np.ndim(value) == 0 else value


def _interval(
    data: tuple[np.ndarray, ...],
    statistic: Callable[..., np.ndarray],
    confidence: float,
    seed: int,
    resamples: int,
    *,
    paired: bool = False,
) -> Interval:
    """BCa limits; percentile limits where BCa has none; the point itself where nothing varies."""
    point = np.asarray(statistic(*data, axis=0), np.float64)
    if min(len(part) for part in data) < 2:
        nothing = np.full_like(point, np.nan)
        return Interval(_scalar(point), _scalar(nothing), _scalar(nothing))
    row_bytes = 8 * max(part.size for part in data)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # degenerate columns are dealt with below
        found = stats.bootstrap(
            data,
            statistic,
            n_resamples=resamples,
            batch=int(max(1, _BATCH_BYTES // row_bytes)),
            vectorized=True,
            paired=paired,
            axis=0,
            confidence_level=confidence,
            method="BCa",
            rng=np.random.default_rng(seed),
        )
        tail = (1.0 - confidence) / 2.0
        limits = np.quantile(found.bootstrap_distribution, (tail, 1.0 - tail), axis=-1)
    low, high = (np.asarray(limit) for limit in found.confidence_interval)
    low, high = (np.where(np.isnan(x), q, x) for x, q in zip((low, high), limits, strict=True))
    varies = np.any([np.broadcast_to(_spread(part), point.shape) for part in data], axis=0)
    low, high = (np.where(varies, limit, point) for limit in (low, high))
    return Interval(_scalar(point), _scalar(low), _scalar(high))
