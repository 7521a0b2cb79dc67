"""Bootstrap confidence intervals (Efron 1987, BCa), by ``scipy.stats.bootstrap``.

What is resampled are whole lifetimes or whole tasks, never single episodes: episodes of one
lifetime depend on each other. Intervals over several columns are pointwise.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from numpy.typing import ArrayLike
from scipy import stats

from metaql.errors import UsageError

RESAMPLES = 2000
"""Enough that the seed moves a 95% limit by about 0.06 standard errors."""
_BATCH_BYTES = 2**25


class Interval(NamedTuple):
    """A mean with its confidence interval; arrays when there are several columns."""

    mean: Float[Any, ...]
    low: Float[Any, ...]
    high: Float[Any, ...]


def mean_interval(
    values: ArrayLike, confidence: float = 0.95, seed: int = 0, *, resamples: int = RESAMPLES
) -> Interval:
    """Mean over the first axis with its BCa bootstrap interval.

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
    return _interval((rows,), _mean_of_all, confidence, seed, resamples)


def stratified_interval(
    values: ArrayLike,
    strata: Shaped[np.ndarray, " N"],
    confidence: float = 0.95,
    seed: int = 0,
    *,
    resamples: int = RESAMPLES,
) -> Interval:
    """Mean over the first axis, resampled within strata: their sizes stay what they are.

    The interval says how the mean would vary if the same tasks (or seeds) were run again;
    differences between strata do not widen it. A stratum of one value has no spread of its own.

    Args:
        values: ``[N]`` or ``[N, ...]``.
        strata: ``[N]``, the task (or seed) of each row.
        confidence: of the two-sided interval, in (0, 1).
        seed: of the resampling.
        resamples: bootstrap resamples.

    Raises:
        UsageError: as `mean_interval`, or ``strata`` has another length.
    """
    rows, names = _checked(values, confidence), np.asarray(strata)
    if names.shape != rows.shape[:1]:
        raise UsageError(
            "`strata` must name the stratum of every row.",
            f"Got {names.shape} for {rows.shape[0]} rows.",
        )
    groups = [rows[names == name] for name in np.unique(names)]
    varying = tuple(group for group in groups if _spread(group).any())
    mean = rows.mean(axis=0)
    if not varying:
        return Interval(_scalar(mean), _scalar(mean), _scalar(mean))

    def share(*samples: np.ndarray, axis: int) -> np.ndarray:
        return np.sum([sample.sum(axis=axis) for sample in samples], axis=0) / len(rows)

    # The rest is the same in every resample, so it only shifts the limits.
    found = _interval(varying, share, confidence, seed, resamples)
    rest = mean - found.mean
    return Interval(_scalar(mean), _scalar(found.low + rest), _scalar(found.high + rest))


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
        UsageError: as `mean_interval`, lengths differ, or floor and ceiling have the same sum.
    """
    data = tuple(_checked(part, confidence) for part in (adapted, floor, ceiling))
    shapes = [part.shape for part in data]
    if len(set(shapes)) > 1 or data[0].ndim != 1:
        raise UsageError("Scores need one value per task in each part.", f"Got shapes {shapes}.")
    if np.isclose(data[1].sum(), data[2].sum(), rtol=1e-12, atol=0.0):
        raise UsageError(
            "A normalised score needs a ceiling above the floor.",
            f"Both sum to {data[1].sum():g} over {len(data[0])} tasks.",
            "Use tasks on which adapting can help.",
        )
    return _interval(data, _ratio, confidence, seed, resamples, paired=True)


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
