"""FiniteQ: one learner for any finite MDP, from one state to thousands.

Evidence -> posterior over models, its own hyper-parameters inferred -> optimistic plan -> action. How
optimistic is learned across tasks; what is believed of a kind of task before its first step is fitted
across tasks (`Hyperprior`). Relabelling actions relabels the output, but of bandits whose arms are told apart
(`metaql.embedding.arms`). The numbers of states count only in the sparse layout, and there only as far as
they foresee (`metaql.embedding.strides`).
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metaql.embedding.embed import Clock
from metaql.embedding.evidence import Evidence, base_weights, no_evidence, num_states
from metaql.embedding.hyperprior import SPREADS, Hyperprior, broad
from metaql.embedding.judging import observe
from metaql.embedding.rewards import reward_unit
from metaql.policy.curiosity import Arms, Curiosity
from metaql.policy.model import Model, posterior
from metaql.policy.outlook import (
    SHORT,
    Lift,
    Plan,
    flat,
    hopes,
    most_known,
    most_undiscounted,
    no_plan,
    reach,
    settle,
    sweep,
    task_discount,
)
from metaql.tasks.finite import NO_HORIZON
from metaql.types import Decision, PRNGKey, TaskSpec, Transition

_UNLIMITED = 200.0
"""Steps an episode is expected to take where nothing limits it and none has ended."""
_LONG = 1e4
"""Horizons beyond this are as good as none."""
_ALIKE = 1e-5
"""Share of a value that rounding, and what planning leaves open, may make."""
_TRAINED = 150.0
"""Steps that plans looked ahead in training on many states, at most."""
_SOME = 4.0
"""Visits per pair tried from which on plans look as far as the lifetime lasts."""


class Knowledge(NamedTuple):
    """Memory of FiniteQ in one lifetime."""

    evidence: Evidence
    plan: Plan
    """Optimistic values, refreshed every step."""
    closing: Plan
    """The same for the last steps of a long episode, planned to its very end."""
    clock: Clock
    spec: TaskSpec


def no_knowledge(spec: TaskSpec, slots: int | None) -> Knowledge:
    """Nothing seen and nothing planned; ``slots`` as in `no_evidence`."""
    zero = jnp.zeros(())
    plan = no_plan(spec)
    return Knowledge(no_evidence(spec, slots), plan, plan, Clock(zero, zero), spec)


def is_closing(memory: Knowledge) -> Bool[Array, ""]:
    """Whether a long episode is so near its end that it is planned to the step."""
    left = memory.spec.horizon - memory.clock.step
    return (memory.spec.horizon > SHORT) & (left <= SHORT)


class FiniteQ(eqx.Module):
    """Meta-learned Q-learner for finite MDPs; see `metaql.types.Learner` for its three functions."""

    prior: Hyperprior
    curiosity: Curiosity
    slots: int | None = eqx.field(static=True, default=None)
    """Successors remembered per pair; None: all, in dense arrays."""
    sweeps: int = eqx.field(static=True, default=8)
    """Most Bellman sweeps per step, for horizons over `SHORT`."""
    compiles_plainly: ClassVar[bool] = True

    def init(self, key: PRNGKey, spec: TaskSpec) -> Knowledge:
        """Knowledge before the first step."""
        del key
        return self.replan(no_knowledge(spec, self.slots))

    def act(self, key: PRNGKey, memory: Knowledge, state: Int[Array, ""]) -> Decision:
        """Greedy on the optimistic values, with what is believed of all actions."""
        action, values = self.greedy(key, memory, state)
        mask = memory.spec.action_mask
        return Decision(action, values, jnp.where(mask, self.believed(memory).q[state], -jnp.inf))

    def greedy(
        self, key: PRNGKey, memory: Knowledge, state: Int[Array, ""]
    ) -> tuple[Int[Array, ""], Float[Array, " A"]]:
        """The action with the largest optimistic value, ties broken at random, and these values."""
        mask = memory.spec.action_mask
        q = jnp.where(is_closing(memory), memory.closing.q[state], memory.plan.q[state])
        values = jnp.where(mask, q, -jnp.inf)
        noise = jax.random.uniform(key, values.shape)
        close = values >= values.max() - self.alike(memory) * jnp.abs(values.max())
        return jnp.argmax(jnp.where(close, noise, -1.0)).astype(jnp.int32), values

    def alike(self, memory: Knowledge) -> Float[Array, ""]:
        """Share of the best value by which another may fall short and count as its equal.

        An offset of a bandit's rewards is part of all values: no difference is judged by it.
        """
        seen = memory.evidence
        unit = reward_unit(seen, self.prior)
        return _ALIKE * jnp.minimum(unit / jnp.maximum(seen.peak, 1e-30), 1.0)

    def update(self, key: PRNGKey, memory: Knowledge, transition: Transition) -> Knowledge:
        """Judge and count the transition, then plan anew."""
        del key
        return self.replan(self.learn(memory, transition))

    def learn(self, memory: Knowledge, transition: Transition) -> Knowledge:
        """Judge and count the transition; the plan stays as it was, but for the unit of reward.

        With the first end it is forgotten.
        """
        ended = transition.terminated | transition.truncated
        clock = Clock(jnp.where(ended, 0.0, memory.clock.step + 1.0), memory.clock.episode + ended)
        evidence = observe(memory.evidence, self.prior, memory.spec, transition)
        # The first reward that is not zero tells the unit; until then hopes were in units of 1.
        told = (memory.evidence.peak == 0) & (evidence.peak > 0)
        factor = jnp.where(told, reward_unit(evidence, self.prior), 1.0)
        factor = jnp.where(self.prior.unit > 0, 1.0, factor)
        # With the first end hopes are others: from the old ones sweeps would be long in coming down.
        factor = jnp.where(evidence.ended & ~memory.evidence.ended, 0.0, factor)
        plan = jax.tree.map(lambda x: x * factor, memory.plan)
        return memory._replace(evidence=evidence, clock=clock, plan=plan)

    def replan(self, memory: Knowledge) -> Knowledge:
        """Optimistic values for what is known now, from the last ones on."""
        seen = memory.evidence
        # Where episodes end by themselves there may be dangers: hopes are more careful.
        model = self.model(memory, seen.ended.astype(jnp.float32))
        ahead, endless = self.ahead(memory), memory.spec.horizon > SHORT
        within = 1.0 - 1.0 / ahead
        # As long as nothing was paid, to go on is all there is to hope for.
        told = seen.ended & (seen.peak > 0)
        most = jnp.where(told, most_known(model, within), jnp.inf)
        hoped = hopes(model, self.lift(memory, model, ahead), most)
        discount = jnp.where(endless, within, 1.0)
        left = jnp.clip(memory.spec.horizon - memory.clock.step, 1, SHORT).astype(jnp.int32)
        to_the_step = most_undiscounted(hoped.most, left, ahead)
        start = jax.tree.map(lambda x: jnp.where(endless, x, 0.0), memory.plan)
        usual = jnp.where(endless, self.sweeps, left)
        times = usual + jnp.where(is_closing(memory), left, 0)

        # One loop for both plans: a sweep is compiled once.
        def once(number: Array, plans: tuple[Plan, Plan]) -> tuple[Plan, Plan]:
            late = number >= usual
            before = _either(late, plans[1], plans[0])
            now = jnp.where(late, 1.0, discount), endless & ~late
            bound = jnp.where(now[1], hoped.most, to_the_step)
            after = sweep(model, hoped._replace(most=bound), before, *now)
            return _either(late, plans[0], after), _either(late, after, plans[1])

        plans = (start, jax.tree.map(jnp.zeros_like, start))
        plan, closing = jax.lax.fori_loop(0, times, once, plans)
        return memory._replace(plan=plan, closing=closing)

    def ahead(self, memory: Knowledge) -> Float[Array, ""]:
        """Steps that plans for acting look ahead, where episodes are long."""
        seen = memory.evidence
        visits = seen.steps / jnp.maximum((seen.pair.visits > 0).sum(), 1)
        # What comes after the lifetime is worth nothing. Half of what is left, while little is known.
        remaining = self.outlook(memory)[0] * jnp.clip(visits / _SOME, 0.5, 1.0)
        return jnp.minimum(reach(memory.spec, visits), jnp.maximum(remaining, 2.0))

    def model(self, memory: Knowledge, upwards: Float[Array, ""] | float = 0.0) -> Model:
        """The posterior over models; ``upwards`` as in `posterior`."""
        seen = memory.evidence
        curiosity = self.curiosity.settled(seen.ended)
        tried = (seen.pair.visits > 0).sum()
        number = jnp.where(seen.alone, tried, seen.met.sum())
        records = curiosity.beyond(number, reward_unit(seen, self.prior))
        return posterior(seen, self.prior, memory.spec, records, upwards)

    def lift(self, memory: Knowledge, model: Model, ahead: Float[Array, ""]) -> Lift:
        """Deviations of optimism at every index.

        Where there are many states, deviations of unknown rewards add up along a plan: one that looks 500
        steps ahead hopes five times as much as one of 100. Early on that is what finds what lies far ahead.
        Of what it adds beyond the farthest plans of training, as much is taken back as of the lifetime is
        over.

        Args:
            memory: of the lifetime.
            model: from `model`.
            ahead: steps that the plan looks ahead.
        """
        seen = memory.evidence
        curiosity = self.curiosity.settled(seen.ended)
        steps_left, facts = self.outlook(memory)
        # Two values may be wins and losses, or the first two rewards of very many.
        known = jnp.where((self.prior.unit > 0) | ~seen.binary, 1.0, model.bounds.hold)
        arms = Arms(jnp.where(seen.alone, known, seen.ended), model.bounds.hold)
        # What ends an episode pays once in it, and the way there is gone once.
        once = seen.met.sum() * jnp.maximum(memory.spec.episodes - memory.clock.episode, 1.0)
        pulls = jnp.where(seen.has_goals, jnp.minimum(once, steps_left), steps_left)
        arguments = (pulls, seen.met.sum(), facts, arms)
        over = seen.steps / (seen.steps + steps_left)
        calm = jnp.minimum(_TRAINED / ahead, 1.0) ** over
        calm = jnp.where(seen.alone, 1.0, calm)
        return Lift(
            calm * curiosity(model.visits, model.strength, *arguments),
            calm * curiosity(seen.arrival.visits, model.arrival_strength, *arguments),
            calm * curiosity(jnp.zeros(()), model.fresh_strength, *arguments),
        )

    def outlook(self, memory: Knowledge) -> tuple[Float[Array, ""], Float[Array, " F"]]:
        """Steps left in the lifetime, and the facts that `Curiosity` sees."""
        seen, clock, spec = memory.evidence, memory.clock, memory.spec
        horizon = jnp.minimum(spec.horizon.astype(jnp.float32), _LONG)
        # With one state nothing but the horizon ends an episode, as long as nothing else did.
        sure = seen.alone & (spec.horizon < NO_HORIZON) & ~seen.ended
        usual = jnp.where(sure, horizon, jnp.minimum(horizon, _UNLIMITED))
        length = (seen.steps - clock.step + usual) / (clock.episode + 1.0)
        episodes = spec.episodes.astype(jnp.float32)
        later = jnp.maximum(episodes - clock.episode - 1.0, 0.0) * length
        left = later + jnp.clip(
            jnp.maximum(length, 1.0), 1.0, jnp.maximum(horizon - clock.step, 1.0)
        )
        if spec.steps is not None:
            left = jnp.minimum(left, jnp.maximum(spec.steps - seen.steps, 1.0))
        by_base = base_weights(seen, self.prior)
        spread = by_base.sum(0) @ jnp.log(jnp.asarray(SPREADS))
        facts = [
            jnp.log(left) / 5.0,
            left / (left + seen.steps),
            jnp.log(seen.met.sum() + 1.0) / 3.0,
            seen.met.sum() / num_states(spec),
            jnp.log(spec.action_mask.sum()) / 2.0,
            jnp.log(horizon) / 4.0,
            spread / 3.0,
            by_base[1].sum(),
            (seen.pair.visits > 0).sum() / (seen.met.sum() * spec.action_mask.sum() + 1.0),
            seen.binary & (seen.highest > seen.lowest),
            4.0 * seen.density,
        ]
        return left, jnp.stack([jnp.asarray(fact, jnp.float32) for fact in facts])

    def believed(self, memory: Knowledge) -> Plan:
        """Posterior mean values of the whole task, planned to the end."""
        model = self.model(memory)
        hoped = hopes(model, flat(model))
        discount, endless = task_discount(memory.spec)

        def once(plan: Plan) -> Plan:
            return sweep(model, hoped, plan, discount, endless)

        unit = reward_unit(memory.evidence, self.prior)
        return settle(once, memory.plan, memory.spec, unit)


def _either(which: Bool[Array, ""], first: Plan, second: Plan) -> Plan:
    return Plan(*(jnp.where(which, *both) for both in zip(first, second, strict=True)))


def untrained() -> FiniteQ:
    """The hand-set rule that training starts from."""
    return FiniteQ(broad(), Curiosity())
