"""Intervals cover what they say; blocks, regret and curves agree with sums done by hand."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from scipy import stats

from metaql.errors import UsageError
from metaql.evaluation.blocks import (
    BLOCKS,
    Cell,
    block_means,
    block_name,
    block_table,
    blocks_within,
    curve_by_episode,
    curve_by_steps,
    regret,
    step_grid,
)
from metaql.evaluation.intervals import mean_interval, normalised_score


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda: rng().normal(3.0, 2.0, (60, 800)), 3.0),
        (lambda: rng().exponential(1.0, (60, 800)), 1.0),
        (lambda: (rng().random((60, 800)) < 0.3).astype(float), 0.3),
    ],
    ids=["normal", "exponential", "success"],
)
def test_the_interval_covers_the_truth_as_often_as_it_says(draw, truth, confidence):
    found = mean_interval(draw(), confidence, resamples=1000)
    covered = np.mean((found.low <= truth) & (truth <= found.high))
    assert covered == pytest.approx(confidence, abs=0.03)


def test_on_normal_data_it_is_the_textbook_interval():
    values = rng().normal(5.0, 2.0, 400)
    found = mean_interval(values, resamples=9999)
    half = 1.96 * values.std() / 20
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.05 * half)


@pytest.mark.parametrize("number", [2, 3, 5, 19])
def test_of_few_values_it_is_wide_enough(number):
    found = mean_interval(rng().normal(3.0, 2.0, (number, 4000)))
    covered = np.mean((found.low <= 3.0) & (found.high >= 3.0))
    assert covered == pytest.approx(0.95, abs=0.015)


def test_skew_is_followed():
    found = mean_interval(rng().exponential(1.0, 40))
    assert found.high - found.mean > 1.15 * (found.mean - found.low)


def test_columns_are_as_if_alone_and_the_seed_repeats():
    values = rng().normal(size=(30, 2, 3))
    found = mean_interval(values, seed=4)
    assert found.low.shape == (2, 3)
    alone = tuple(x[1, 2] for x in found)
    assert mean_interval(values[:, 1, 2], seed=4) == pytest.approx(alone, abs=1e-12)
    assert mean_interval(values[:, 1, 2], seed=5).low != found.low[1, 2]


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -7.3])
def test_a_constant_has_a_point_for_an_interval(value):
    assert mean_interval([value] * 7) == pytest.approx((value,) * 3)
    found = mean_interval(np.column_stack([np.full(20, value), rng().random(20)]))
    assert (found.low[0], found.high[0]) == pytest.approx((value, value))
    assert found.low[1] < found.mean[1] < found.high[1]


def test_nearly_constant_success_has_finite_limits():
    for successes in (1, 2, 199):
        found = mean_interval(np.arange(200) < successes)
        assert 0.0 <= found.low <= found.mean <= found.high <= 1.0
        assert found.low < found.high


def test_one_value_has_no_interval():
    found = mean_interval([3.0])
    assert found.mean == 3.0
    assert np.isnan([found.low, found.high]).all()


@pytest.mark.parametrize("values", [[], np.zeros((0, 3)), [1.0, np.nan], [np.inf, 1.0], 3.0])
def test_values_without_an_interval_are_refused(values):
    with pytest.raises(UsageError):
        mean_interval(values)


def test_a_confidence_in_percent_is_refused():
    with pytest.raises(UsageError, match=r"in \(0, 1\)"):
        mean_interval([1.0, 2.0], 95)


def test_the_score_is_a_ratio_of_sums():
    adapted, floor, ceiling = np.array([1.0, 6.0]), np.array([1.0, 2.0]), np.array([3.0, 12.0])
    found = normalised_score(adapted, floor, ceiling)
    assert found.mean == pytest.approx(4 / 12)  # not the mean of 0/2 and 4/10, 0.2
    assert (found.low, found.high) == pytest.approx((0.0, 0.4))


def test_the_score_resamples_tasks_together():
    floor = 100 * rng().random(50)
    room = 1 + rng().random(50)
    found = normalised_score(floor + 0.5 * room, floor, floor + room)
    assert found == pytest.approx((0.5, 0.5, 0.5))


def test_the_score_covers_the_truth():
    draws = rng()
    room = draws.uniform(0.5, 1.5, (200, 80))
    adapted = room * np.clip(draws.normal(0.8, 0.2, room.shape), 0, None)
    truth = 0.8
    found = [
        normalised_score(a, 0 * a, c, resamples=500) for a, c in zip(adapted, room, strict=True)
    ]
    assert np.mean([x.low <= truth <= x.high for x in found]) == pytest.approx(0.95, abs=0.04)


def test_a_score_without_room_is_refused():
    with pytest.raises(UsageError, match="above the floor"):
        normalised_score([1.0, 2.0], [1.0, 2.0], [2.0, 1.0])
    with pytest.raises(UsageError, match="one value per task"):
        normalised_score([1.0, 2.0], [1.0], [2.0, 1.0])


RETURNS = np.array([np.arange(1.0, 21.0), np.full(20, 4.0)])


def test_block_means_by_hand():
    assert block_means(RETURNS) == pytest.approx(np.array([[1.5, 4, 8, 15.5], [4, 4, 4, 4]]))
    for block in ((0, 2), (3, 2), (11, 21)):
        with pytest.raises(UsageError, match="within 1 to 20"):
            block_means(RETURNS, [block])
    with pytest.raises(UsageError, match="lifetimes, episodes"):
        block_means(RETURNS[0])


def test_blocks_are_cut_to_the_episodes_there_are():
    assert blocks_within(20) == BLOCKS
    assert blocks_within(8) == ((1, 2), (3, 5), (6, 8))
    assert blocks_within(6)[-1] == (6, 6)
    assert [block_name(block) for block in blocks_within(6)] == ["1-2", "3-5", "6"]


def test_the_table_agrees_with_scipy_and_prints():
    returns = (rng().random((100, 20)) < 0.4).astype(float)
    learner, optimum = block_table({"Q-learning": returns}, {"optimum": 0.74419})
    values = returns[:, 5:10].mean(axis=1)
    direct = stats.bootstrap((values,), np.mean, n_resamples=2000, rng=np.random.default_rng(0))
    cell = learner.cells[2]
    assert (cell.mean, cell.low, cell.high) == pytest.approx(
        (values.mean(), *direct.confidence_interval), abs=0.005
    )
    assert learner.runs == 100
    assert optimum.as_text() == ("optimum", "0.744", "0.744", "0.744", "0.744")
    assert str(Cell(mean=0.5, low=0.4, high=0.61)) == "0.50 [0.40, 0.61]"
    assert str(Cell(mean=0.0012, low=-0.00042, high=0.003)) == "0.0012 [-0.0004, 0.0030]"
    assert str(Cell(mean=0.004)) == "0.0040"
    assert str(Cell(mean=2e-9, low=1e-9, high=3e-9)) == "2.0e-09 [1.0e-09, 3.0e-09]"
    assert str(Cell(mean=-0.001, low=-31.5, high=0.0)) == "0.00 [-31.50, 0.00]"
    back = json.loads(json.dumps([row.as_dict() for row in (learner, optimum)]))
    assert back[0]["cells"][2]["mean"] == pytest.approx(values.mean())
    assert back[1]["cells"][0] == {"mean": 0.74419, "low": None, "high": None}


def test_the_table_of_one_short_lifetime_has_no_intervals():
    (row,) = block_table({"one": RETURNS[:1, :4]})
    assert row.cells == (Cell(mean=1.5), Cell(mean=3.5))


def test_regret_by_hand():
    found = regret(np.array([[1.0, 3.0, 2.0], [0.0, 0.0, 1.0]]), [2.0, 1.0])
    assert found == pytest.approx(np.array([[1.0, 0.0, 0.0], [1.0, 2.0, 2.0]]))
    assert regret(np.ones((2, 2)), 3.0) == pytest.approx(np.array([[2.0, 4.0]] * 2))


def test_the_curve_by_episode_is_the_column_mean():
    curve = curve_by_episode(RETURNS)
    assert curve.x == pytest.approx(np.arange(1, 21))
    assert curve.mean == pytest.approx(RETURNS.mean(axis=0))
    assert (curve.low <= curve.mean).all()
    assert (curve.mean <= curve.high).all()


def test_the_curve_by_steps_by_hand():
    returns = np.array([[0.0, 1.0, 3.0], [2.0, 4.0, 6.0]])
    lengths = np.array([[2, 2, 2], [3, 4, 10]])  # episodes end at 2, 4, 6 and at 3, 7, 17
    grid = np.array([1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 17.0, 50.0])
    curve = curve_by_steps(returns, lengths, grid, window=2)
    assert curve.x == pytest.approx(grid[2:])  # before 3 the second has finished nothing
    first = np.array([0, 0.5, 2, 2, 2, 2])
    second = np.array([2, 2, 2, 3, 5, 5])
    assert curve.mean == pytest.approx((first + second) / 2)
    with pytest.raises(UsageError, match="ends at step 3"):
        curve_by_steps(returns, lengths, np.array([1.0]))
    with pytest.raises(UsageError, match="length for every return"):
        curve_by_steps(returns, lengths[:, 1:])
    assert step_grid(lengths, 4) == pytest.approx([3, 6, 9, 12])  # to the median of 6 and 17, 11.5
