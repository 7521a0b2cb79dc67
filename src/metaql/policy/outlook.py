"""Planning in the posterior over models.

One Bellman sweep, with n(s, a) visits and y(s') what arriving in s' is worth:

    y(s')   = g r(s') + gamma l(s') V(s')                                   (+ c_s dev y(s'))
    E y     = kept(s, a) mean_n y + (1 - kept(s, a)) E_base y
    R(s, a) = (1 - g) r(s, a) + g d(s, a)
    Q(s, a) = R(s, a) + E g r(s') + stay(s, a) (E y - E g r(s'))            (+ c dev Q(s, a))
    V(s)    = max_a Q(s, a)

``mean_n`` is over the successors counted, ``kept`` the posterior share of n visits against the prior's
concentration, averaged over its candidates. The base of what was not shown yet is where the action's
strides lead, or a mixture: any state alike, one that other actions have led to, the state itself, a
state never met. A state never met has a row of its own: it is like any other in which nothing was tried. What
V is hoped to be may be bounded (`Hopes.most`). g
is the probability that rewards belong to the state arrived in, d what the pair adds to them, l and stay the
probabilities of going on. The terms in parentheses are what is added for acting: posterior deviations of the
one-step target, times `Curiosity`'s c (in the spirit of Sorg, Singh & Lewis 2010; Kolter & Ng 2009).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metaql.embedding import successors as after
from metaql.embedding.strides import Leads
from metaql.policy.model import Bounds, Model
from metaql.types import TaskSpec

LONGEST = 100.0
"""Horizons beyond this many steps are planned with the discount of this one."""
SHORT = 16
"""Horizons up to this many steps are planned step by step, to the very end; so are others' last steps."""
_ENOUGH, _FARTHEST = 12.0, 500.0
"""Visits per pair tried from which on acting looks farther than `LONGEST`, and how far at most."""
_MOST_SWEEPS = 2_000
Planned = TypeVar("Planned")


class Lift(NamedTuple):
    """How many posterior deviations to add, everywhere; all zero: the posterior mean."""

    pair: Float[Array, "S A"]
    arrival: Float[Array, " S"]
    fresh: Float[Array, ""]


class Plan(NamedTuple):
    """Values of every pair, and of a state never met."""

    q: Float[Array, "S A"]
    fresh: Float[Array, ""]


def no_plan(spec: TaskSpec) -> Plan:
    """All zero."""
    return Plan(jnp.zeros((spec.state_mask.shape[0], spec.action_mask.shape[0])), jnp.zeros(()))


def flat(model: Model) -> Lift:
    """No optimism."""
    size = model.mask.shape
    return Lift(jnp.zeros(size), jnp.zeros(size[0]), jnp.zeros(()))


class Hopes(NamedTuple):
    """What sweeps add up of rewards: the same in all of them."""

    lift: Lift
    landed: Float[Array, " S"]
    """Paid on arrival, with what is hoped for."""
    fresh_landed: Float[Array, ""]
    paid: Float[Array, "S A"]
    """Its expectation after acting."""
    fresh_paid: Float[Array, ""]
    beyond: Float[Array, "S A"]
    """Hoped for beyond the mean of what pairs explain."""
    fresh_beyond: Float[Array, ""]
    most: Float[Array, ""]
    """Bound on what going on is hoped to be worth, from any state."""


def hopes(model: Model, lift: Lift, most: Float[Array, ""] | float = jnp.inf) -> Hopes:
    """Rewards under this lift: of `Curiosity`, or `flat`.

    Args:
        model: from `posterior`.
        lift: deviations.
        most: going on is hoped to be worth no more than this, or than what a state never met may pay; see
            `most_known`.
    """
    landing, reward, bounds, share = model.landing, model.reward, model.bounds, model.by_arrival
    landed = landing.mean + _hope(landing[:2], lift.arrival, bounds, share)
    hope = _hope(landing[2:], lift.fresh, bounds, share)
    fresh_landed = landing.fresh_mean + hope
    (paid,), (fresh_paid,), _ = foresee(model, landed[None], fresh_landed[None])
    beyond = _hope(reward[:2], lift.pair, bounds, 1.0 - share)
    fresh_beyond = _hope(reward[2:], lift.fresh, bounds, 1.0 - share)
    most = jnp.maximum(most, fresh_landed)
    return Hopes(lift, landed, fresh_landed, paid, fresh_paid, beyond, fresh_beyond, most)


def most_known(model: Model, discount: Float[Array, ""]) -> Float[Array, ""]:
    """The most that can be had of what was tried: its best pair, over and over.

    At this discount no endless plan among these pairs is worth more than this M: of all of them
    ``r <= M (1 - gamma on)``, so where what follows is worth at most M, acting is, too.

    Args:
        model: from `posterior`.
        discount: gamma.
    """
    rows = jnp.stack([model.landing.mean, model.onward.mean])
    fresh = jnp.stack([model.landing.fresh_mean, model.onward.fresh_mean])
    (paid, goes_on), _, _ = foresee(model, rows, fresh)
    gain = (model.reward.mean + paid) / (1.0 - discount * model.stay.mean * goes_on)
    return jnp.where(model.mask & (model.visits > 0), gain, -jnp.inf).max()


def most_undiscounted(
    most: Float[Array, ""], steps: Int[Array, ""], ahead: Float[Array, ""]
) -> Float[Array, ""]:
    """The bound for a plan of so many steps without discount that goes with M, the one at 1 - 1 / ahead.

    By induction over n steps ``V_n <= M (1 + (n - 1) / ahead)``; a plan that stops need not go on paying a
    price, so M counts as 0 at least.
    """
    return jnp.maximum(most, 0.0) * (1.0 + (steps - 1.0) / ahead)


def sweep(
    model: Model, hopes: Hopes, plan: Plan, discount: Float[Array, ""], endless: Bool[Array, ""]
) -> Plan:
    """One Bellman sweep.

    Args:
        model: from `posterior`.
        hopes: of the same model.
        plan: the values so far (with one step less to go, when ``endless`` is false).
        discount: gamma.
        endless: whether values are those of a fixed point. Then the row of the states never met, which
            mostly lead to each other, is solved for itself: by sweeps it would take 1 / (1 - gamma).
    """
    values = jnp.where(model.mask, plan.q, -jnp.inf).max(-1)
    values = jnp.minimum(jnp.where(model.mask.any(-1), values, 0.0), hopes.most)
    lift, onward = hopes.lift, model.onward
    worth = hopes.landed + _on(onward[:2], discount * values, lift.arrival)
    later = discount * jnp.minimum(plan.fresh, hopes.most)
    fresh_worth = hopes.fresh_landed + _on(onward[2:], later, lift.fresh)
    top = jnp.where(model.met, worth, -jnp.inf).max()
    top = jnp.maximum(top, jnp.where(model.unmet_share > 0, fresh_worth, -jnp.inf))
    both, fresh_both = jnp.stack([worth, worth**2]), jnp.stack([fresh_worth, fresh_worth**2])
    (mean, square), (fresh_mean, fresh_square), own = foresee(model, both, fresh_both)
    spread = model.outcomes.narrow * jnp.maximum(square - mean**2, 0.0)
    paid_now, later = (model.reward.mean, hopes.beyond), (mean, spread, hopes.paid)
    q = _act(paid_now, model.stay[:2], later, lift.pair, top)
    q = jnp.where(model.mask, q, 0.0)

    # The row of a state never met: nothing tried, so every action is alike.
    spread = model.outcomes.fresh_narrow * jnp.maximum(fresh_square - fresh_mean**2, 0.0)
    paid_now, later = (
        (model.reward.fresh_mean, hopes.fresh_beyond),
        (fresh_mean, spread, hopes.fresh_paid),
    )
    next_fresh = _act(paid_now, model.stay[2:], later, lift.fresh, top)
    # Solved for itself, where it is the best there is: below, optimism turns the slope around.
    loop = model.stay.fresh_mean * own * model.onward.fresh_mean * discount
    loop = jnp.where(plan.fresh < hopes.most, loop, 0.0)
    solved = plan.fresh + (next_fresh - plan.fresh) / (1.0 - loop)
    return Plan(q, jnp.where(endless & (fresh_worth >= top), solved, next_fresh))


def settle(
    once: Callable[[Planned], Planned],
    start: Planned,
    spec: TaskSpec,
    unit: Float[Array, ""],
) -> Planned:
    """Repeat a sweep to the end of an episode, or until the values are those of the fixed point.

    Args:
        once: one sweep, of any tree of which the first leaf is Q.
        start: values to start from, where they are those of a fixed point; else 0 is.
        spec: of the task.
        unit: of reward; values settle to a thousandth of it.
    """
    discount, endless = task_discount(spec)
    start = jax.tree.map(lambda x: jnp.where(endless, x, 0.0), start)
    times = jnp.where(endless, _MOST_SWEEPS, jnp.minimum(spec.horizon, SHORT))
    close = 1e-3 * unit * (1.0 - discount)

    def going(carry: tuple[Array, Planned, Array]) -> Array:
        number, _, change = carry
        return (number < times) & (~endless | (change > close))

    def sweep_on(carry: tuple[Array, Planned, Array]) -> tuple[Array, Planned, Array]:
        number, planned, _ = carry
        after = once(planned)
        pairs = (jax.tree.leaves(each)[0] for each in (after, planned))
        return number + 1, after, jnp.abs(jnp.subtract(*pairs)).max()

    none = jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(going, sweep_on, (none, start, jnp.full((), jnp.inf)))[1]


def foresee(
    model: Model, values: Float[Array, "C S"], fresh: Float[Array, " C"]
) -> tuple[Float[Array, "C S A"], Float[Array, " C"], Float[Array, ""]]:
    """Posterior mean of each row of ``values`` after acting.

    Args:
        model: from `posterior`.
        values: of arriving in every state.
        fresh: of arriving in one never met.

    Returns:
        For every pair; for one of a state never met; and how likely that leads to another such state.
    """
    met = model.met.astype(values.dtype)
    share = met / jnp.maximum(met.sum(), 1.0) * (1.0 - model.unmet_share)
    everywhere = values @ share + model.unmet_share * fresh
    counted = after.expectation(model.successors, model.outcomes.weights, values)
    kept = model.outcomes.kept
    tried = (model.visits * kept).sum(-1)
    pooled = (counted * model.visits).sum(-1) / jnp.maximum(tried, 1e-6)
    pooled = jnp.where(tried > 0, pooled, everywhere[:, None])
    anywhere, pool, itself, unmet = model.origins
    base = anywhere * everywhere[:, None] + pool * pooled + itself * values + unmet * fresh[:, None]
    base = base[..., None]
    if model.leads is not None:
        base = base + model.outcomes.by_stride * _beyond(model.leads, values, fresh, base)
    own = (anywhere + pool) * model.unmet_share + itself + unmet
    fresh_mean = (anywhere + pool) * (values @ share) + own * fresh
    return counted + (1.0 - kept) * base, fresh_mean, own


def _beyond(
    leads: Leads,
    values: Float[Array, "C S"],
    fresh: Float[Array, " C"],
    base: Float[Array, "C S 1"],
) -> Float[Array, "C S A"]:
    """How much more each row of ``values`` is where actions' strides lead than by ``base``."""
    return leads.expectation(values, fresh) - leads.known[None] * base


def _hope(
    reward: tuple[Array, ...],
    lift: Float[Array, "*K"],
    bounds: Bounds,
    share: Float[Array, ""],
) -> Float[Array, "*K"]:
    """Optimism about a reward: ``lift`` deviations, of its log-odds where it has one of two values.

    Where hopes are careful never more than the deviations. Log-odds suit an arm that wins or loses by
    chance; to what is sure once seen, but most likely nothing, they promise nearly all: of one chance in ten
    1.5 deviations make 0.94 and not 0.55, and its exact index of 15 visits is 0.63.

    Args:
        reward: mean and variance of the share that this explanation has of it.
        lift: deviations.
        bounds: on the whole reward.
        share: how much of it.
    """
    mean, variance = reward
    deviation = jnp.sqrt(variance)
    apart = bounds.high - bounds.low
    width = share * apart + jnp.where(apart > 1e-6, 1e-9, 1e-3 * apart)
    width = jnp.where(bounds.hold > 0, width, 1.0)
    chance = jnp.clip((mean - share * bounds.low) / width, 1e-3, 1.0 - 1e-3)
    slope = width * chance * (1.0 - chance)
    against = (1.0 - chance) / chance * jnp.exp(-lift * deviation / slope)
    plain = lift * deviation
    within = width * (1.0 / (1.0 + against) - chance)
    within = jnp.where(bounds.careful, jnp.minimum(within, plain), within)
    return plain + bounds.hold * (within - plain)


def _on(
    onward: tuple[Array, ...], later: Float[Array, "*K"], lift: Float[Array, "*K"]
) -> Float[Array, "*K"]:
    """What going on after arrival is worth; no likelier than certain, however optimistic."""
    return _goes_on(onward, later, lift) * later


def _act(
    reward: tuple[Array, ...],
    stay: tuple[Array, ...],
    worth: tuple[Float[Array, "*K"], Float[Array, "*K"], Float[Array, "*K"]],
    lift: Float[Array, "*K"],
    top: Float[Array, ""],
) -> Float[Array, "*K"]:
    """Value of acting.

    ``reward`` is its mean and what is hoped for beyond it; ``worth`` what successors are worth: mean,
    posterior variance, and the part of it that is paid on arrival.
    Optimism about successors takes them no higher than the best state: without that bound it would
    feed on itself.
    """
    (mean, hope), (later, spread, paid) = reward, worth
    stays = _goes_on(stay, later - paid, lift)
    both = jnp.sqrt(hope**2 + (lift * stays) ** 2 * spread)
    room = hope + stays * jnp.maximum(top - later, 0.0)
    return mean + paid + stays * (later - paid) + jnp.minimum(both, room)


def _goes_on(
    chance: tuple[Array, ...], later: Float[Array, "*K"], lift: Float[Array, "*K"]
) -> Float[Array, "*K"]:
    """Optimistic probability of going on to what is worth ``later``; never more than certain."""
    mean, variance = chance
    return jnp.clip(mean + jnp.sign(later) * lift * jnp.sqrt(variance), 0.0, 1.0)


def task_discount(spec: TaskSpec) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """Discount to plan with, and whether it stands for an end that is not planned to the step."""
    horizon = spec.horizon.astype(jnp.float32)
    endless = horizon > SHORT
    discount = 1.0 - 1.0 / jnp.clip(horizon, 2.0, LONGEST)
    return jnp.where(endless, discount, 1.0), endless


def reach(spec: TaskSpec, visits: Float[Array, ""]) -> Float[Array, ""]:
    """Steps that acting looks ahead; more than `LONGEST` where much is known.

    An estimated model is best planned in with a shorter horizon than the true one, the shorter the
    less the estimate rests on (Jiang, Kulesza, Singh & Lewis 2015, "The dependence of effective planning
    horizon on model accuracy").

    Args:
        spec: of the task.
        visits: per pair tried, on average.
    """
    known = jnp.clip(LONGEST * (visits / _ENOUGH) ** 2, LONGEST, _FARTHEST)
    return jnp.clip(spec.horizon.astype(jnp.float32), 2.0, known)
