"""What is believed of a task from vectors: exact posteriors on learned features."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaql.embedding.recurrent import Sight
from metaql.embedding.regression import Posterior, Regression, Row, TaskModel
from metaql.types import Transition

KEY, UNIT = jax.random.key(0), jnp.asarray(2.0)
REGRESSION = Regression(KEY, entries=3, features=4, targets=2)


def steps(count=6, features=4, targets=2):
    """Features and targets of some steps."""
    rng = np.random.default_rng(0)
    sizes = ((count, features), (count, targets))
    return tuple(jnp.asarray(rng.normal(size=size), jnp.float32) for size in sizes)


def posteriors(begin, rows):
    """Before every step, and after the last."""
    last, before = jax.lax.scan(lambda now, row: (now.after(row), now), begin, Row(*rows))
    return before, last


def surprise(regression, before, row):
    """Minus the log density of one step's targets, less a constant."""
    wide = 1.0 + row.features @ before.spread @ row.features
    variance = wide * (jnp.exp(regression.log_noise) + 1e-4)
    error = row.targets - row.features @ before.mean
    return 0.5 * (error**2 / variance + jnp.log(variance)).sum()


def surprises(regression, rows):
    """Of every step, foretold from those before it."""
    before, _ = posteriors(regression.prior(), rows)
    return jax.vmap(surprise, (None, 0, 0))(regression, before, Row(*rows))


def test_step_by_step_is_all_at_once():
    x, y = steps()
    prior = REGRESSION.prior()._replace(spread=jnp.diag(jnp.asarray([0.5, 1.0, 2.0, 3.0])))
    last = posteriors(prior, (x, y))[1]
    precision = np.linalg.inv(prior.spread)
    spread = np.linalg.inv(precision + x.T @ x)
    np.testing.assert_allclose(last.spread, spread, atol=1e-5)
    mean = spread @ (precision @ prior.mean + x.T @ y)
    np.testing.assert_allclose(last.mean, mean, atol=1e-5)


def test_surprises_add_up_to_the_evidence():
    """Of all steps together: a normal density whose covariance the features give."""
    x, y = steps()
    found = surprises(REGRESSION, (x, y)).sum()
    noise = np.exp(REGRESSION.log_noise) + 1e-4
    prior, evidence = REGRESSION.prior(), []
    for k in range(2):
        wide = noise[k] * (np.eye(6) + x @ prior.spread @ x.T)
        error = y[:, k] - x @ prior.mean[:, k]
        evidence.append(0.5 * (error @ np.linalg.solve(wide, error) + np.linalg.slogdet(wide)[1]))
    assert float(found) == pytest.approx(float(sum(evidence)), rel=1e-4)
    at_once = REGRESSION.surprise(REGRESSION.prior(), Row(x, y), jnp.ones(6, bool))
    assert float(at_once) == pytest.approx(float(sum(evidence)), rel=1e-5)


def test_the_evidence_of_many_steps_that_fit_is_exact_enough():
    """Six hundred noiseless steps: what is left of each is a thousandth of what was to be told."""
    x = 2.0 * steps(600)[0]
    weights = jnp.asarray([[1.0, -2.0], [0.5, 0.0], [0.0, 1.5], [3.0, 1.0]])
    quiet = eqx.tree_at(lambda r: r.log_noise, REGRESSION, jnp.full(2, -9.0))
    row, counts = Row(x, x @ weights), jnp.arange(600) < 500
    in_turn = surprises(quiet, tuple(row))[:500].sum()
    at_once = quiet.surprise(quiet.prior(), row, counts)
    np.testing.assert_allclose(at_once, in_turn, rtol=1e-3)


def test_slopes_of_the_evidence_are_those_of_all_surprises():
    x, y = steps()
    counts = jnp.asarray([True] * 4 + [False] * 2)

    def in_turn(regression):
        return (surprises(regression, (x, y)) * counts).sum()

    slopes = jax.grad(in_turn)(REGRESSION)
    at_once = jax.grad(lambda r: r.surprise(r.prior(), Row(x, y), counts))(REGRESSION)
    for name in ("mean", "log_spread", "log_noise"):
        np.testing.assert_allclose(getattr(at_once, name), getattr(slopes, name), atol=1e-4)


def test_a_view_shows_weights_and_how_well_they_are_known():
    posterior = Posterior(jnp.asarray([[0.1], [-9.0]]), jnp.diag(jnp.asarray([1.0, 0.01])))
    known = 2 * np.tanh(np.log([1.0, 0.01]) / 2)
    np.testing.assert_allclose(posterior.view[2:], known, atol=1e-5)
    np.testing.assert_allclose(posterior.view[:2], 2 * np.tanh([0.05, -4.5]), atol=1e-5)


def model():
    whole = TaskModel(KEY, entries=3, actions=4, features=5)
    return whole.knowing(jnp.full((2, 3), 0.5), jnp.ones(2))


def seen(**changed):
    off = jnp.asarray(False)
    step = {"state": jnp.asarray([0.1, 0.2, 0.3]), "action": jnp.asarray(1), "reward": UNIT / 2}
    step |= {"next_state": jnp.asarray([0.2, 0.1, 0.8]), "terminated": off, "truncated": off}
    return Transition(**{**step, **changed})


def rows(**changed):
    return model().rows(Sight(entries=3), seen(**changed), 4, UNIT)


def test_targets_are_in_units():
    found = rows()
    np.testing.assert_allclose(found.rewards.targets, [2.5])  # five times half the largest
    np.testing.assert_allclose(found.changes.targets, [0.2, -0.2, 1.0], atol=1e-3)
    assert found.rewards.features.shape == (5,)
    assert found.changes.features.shape == (3,)


def test_nothing_is_foretold_from_itself():
    """Changes are foretold from what was done where, rewards from the whole step but the reward."""
    base = rows()
    later, paid = rows(next_state=jnp.zeros(3)), rows(reward=jnp.asarray(0.3))
    np.testing.assert_array_equal(base.changes.features, later.changes.features)
    np.testing.assert_array_equal(base.rewards.features, paid.rewards.features)
    assert not np.allclose(base.rewards.features, later.rewards.features)
    for other in (rows(action=jnp.asarray(2)), rows(state=jnp.zeros(3))):
        assert not np.allclose(base.changes.features, other.changes.features)
        assert not np.allclose(base.rewards.features, other.rewards.features)


def test_changes_are_measured_over_all_steps_that_count():
    once = model().knowing(jnp.full((3, 3), 1.0), jnp.asarray([1.0, 0.0, 1.0]))
    np.testing.assert_allclose(once.moved, (2 * 0.25 + 2 * 1.0) / 4)
    assert float(once.count) == 4


def test_values_do_not_train_what_is_foretold():
    def seen_by_values(model):
        belief = model.blank().after(model.rows(Sight(entries=3), seen(), 4, UNIT))
        return belief.view(jnp.zeros(3)).sum()

    slopes = jax.tree.leaves(eqx.filter_grad(seen_by_values)(model()))
    assert all((np.asarray(slope) == 0).all() for slope in slopes)


def test_what_tasks_share_is_learned_and_a_task_is_told_by_few_steps():
    """y = w1 sin(x) + w2 cos(x): after three noiseless points of a new task, the fourth is foretold."""
    tool, whole = optax.adam(1e-2), Regression(KEY, entries=1, features=6, targets=1)

    def drawn(key):
        key_x, key_w = jax.random.split(key)
        x = jax.random.uniform(key_x, (16, 8, 1), minval=-3, maxval=3)
        w = jax.random.normal(key_w, (16, 2))
        return x, w[:, None, :1] * jnp.sin(x) + w[:, None, 1:] * jnp.cos(x)

    def told(whole, xs, ys):
        row = Row(jax.vmap(whole.features)(xs), ys)
        before, _ = posteriors(whole.prior(), row)
        errors = ys - jax.vmap(lambda f, m: f @ m)(row.features, before.mean)
        return whole.surprise(whole.prior(), row, jnp.ones(8, bool)) / 8, errors

    def step(carry, key):
        whole, state = carry
        loss = lambda whole: jax.vmap(told, (None, 0, 0))(whole, *drawn(key))[0].mean()  # noqa: E731
        change, state = tool.update(jax.grad(loss)(whole), state, whole)
        return (eqx.apply_updates(whole, change), state), None

    begin = (whole, tool.init(whole))
    (after, _), _ = jax.jit(lambda c, k: jax.lax.scan(step, c, k))(
        begin, jax.random.split(KEY, 600)
    )
    errors = jax.vmap(told, (None, 0, 0))(after, *drawn(jax.random.key(1)))[1]
    size = np.sqrt((np.asarray(errors) ** 2).mean((0, 2)))
    assert size[0] > 0.7
    assert size[4:].max() < 0.15 * size[0]
