"""BeliefQ: statistics -> task embedding -> planning channels -> Q(s, .), for any finite MDP.

The learner every other part of metaql meta-trains and adapts. Equivariant: relabelling states or
actions relabels its output, so one set of weights serves every size.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metaql.embedding.embed import Clock, TaskEmbedding, posterior_mask, reward_scale
from metaql.embedding.statistics import Statistics, combine, empty, observe
from metaql.policy.head import ModeHead, Outlook, QHead, constant
from metaql.policy.planner import Settings, operator, state_values, sweep
from metaql.types import Decision, PRNGKey, TaskSpec, Transition

LONGEST = 100.0
"""Horizons beyond this many steps are planned with the discount of this one."""
_OPTIMISM = (0.0, 0.1, 0.25, 0.5)
"""Optimism of each channel, in posterior standard deviations."""
_MODE_STEPS = 100
"""Steps after which a mode is chosen anew where an episode goes on for longer."""


class BeliefConfig(NamedTuple):
    """Sizes of the network (static)."""

    embedding: int = 16
    hidden: int = 32
    sweeps: int = 4
    """Bellman sweeps per step."""
    first_sweeps: int = 128
    """Sweeps before the first step, where a family prior gives something to plan on."""
    first_mode: int = 2
    """Channel followed before anything is learned about exploring."""


class Belief(NamedTuple):
    """Memory of BeliefQ in one lifetime."""

    evidence: Statistics
    log_trust: Float[Array, ""]
    """Log-odds that the family prior describes this task (prequential)."""
    q: Float[Array, "C S A"]
    """Planning channels, refreshed by a few sweeps a step."""
    z: Float[Array, " Z"]
    mode: Int[Array, ""]
    """Which values to be greedy on: a channel, or (C) the head's posterior mean."""
    starts: Float[Array, " S"]
    """Episodes begun in each state."""
    clock: Clock
    spec: TaskSpec


class BeliefQ(eqx.Module):
    """Meta-learned Q-learner; see `metaql.types.Learner` for its three functions."""

    embed: TaskEmbedding
    tune: eqx.nn.Linear
    """From z to the planner's settings (raw)."""
    head: QHead
    modes: ModeHead
    prior: Statistics | None
    """Family prior, not trained by gradient; None: nothing is known beforehand."""
    epsilon: Float[Array, ""]
    """Share of modes drawn at random: above zero only while meta-training; not trained."""
    config: BeliefConfig = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKey,
        *,
        config: BeliefConfig | None = None,
        prior: Statistics | None = None,
    ) -> None:
        """Fresh weights: the residual layers are zero, so that it starts as the planner's rule."""
        self.config = config = config or BeliefConfig()
        key_embed, key_tune, key_head, key_modes = jax.random.split(key, 4)
        channels = len(_OPTIMISM)
        self.embed = TaskEmbedding(key_embed, hidden=config.hidden, size=config.embedding)
        self.tune = constant(
            eqx.nn.Linear(config.embedding, 2 * channels, key=key_tune), jnp.zeros(2 * channels)
        )
        sizes = {"channels": channels, "embedding": config.embedding, "hidden": config.hidden}
        self.head = QHead(key_head, **sizes)
        self.modes = ModeHead(key_modes, **sizes, first=config.first_mode)
        self.prior = prior
        self.epsilon = jnp.zeros(())

    def init(self, key: PRNGKey, spec: TaskSpec) -> Belief:
        """Belief before the first step."""
        num_states, num_actions = spec.state_mask.shape[0], spec.action_mask.shape[0]
        trust = TRUST_START if self.prior is not None else -TRUST_LIMIT
        belief = Belief(
            evidence=empty(num_states, num_actions),
            # A typed array: a weakly typed one makes the second step of every loop compile anew.
            log_trust=jnp.full((), trust, jnp.float32),
            q=jnp.zeros((len(_OPTIMISM), num_states, num_actions)),
            z=jnp.zeros(self.config.embedding),
            mode=jnp.asarray(self.config.first_mode, jnp.int32),
            starts=jnp.zeros(num_states),
            clock=Clock(jnp.zeros(()), jnp.zeros(())),
            spec=spec,
        )
        belief = self.replan(belief, self.config.first_sweeps if self.prior is not None else 1)
        return self._choose_mode(key, belief)

    def act(self, key: PRNGKey, memory: Belief, state: Int[Array, ""]) -> Decision:
        """Greedy on the values of the present mode."""
        del key
        mask = memory.spec.action_mask
        mean = self.outlook(memory, state).mean
        followed = jnp.concatenate([self.channels(memory, state), mean[None]])[memory.mode]
        values = jnp.where(mask, followed, -jnp.inf)
        estimate = jnp.where(mask, mean, -jnp.inf)
        return Decision(jnp.argmax(values).astype(jnp.int32), values, estimate)

    def update(self, key: PRNGKey, memory: Belief, transition: Transition) -> Belief:
        """Add the transition to the evidence, refresh the plan; choose a mode where an episode ends."""
        ended = transition.terminated | transition.truncated
        clock = Clock(
            jnp.where(ended, 0.0, memory.clock.step + 1.0),
            memory.clock.episode + ended,
        )
        log_trust = memory.log_trust
        if self.prior is not None:
            log_trust = _judge_prior(memory, self.prior, transition)
        evidence = observe(memory.evidence, transition, self.prior)
        began = memory.clock.step == 0
        starts = memory.starts + began * jax.nn.one_hot(transition.state, memory.starts.shape[0])
        belief = memory._replace(evidence=evidence, log_trust=log_trust, starts=starts, clock=clock)
        belief = self.replan(belief, self.config.sweeps)
        anew = self._choose_mode(key, belief)
        return belief._replace(
            mode=jnp.where(clock.step % _MODE_STEPS == 0, anew.mode, belief.mode)
        )

    def _choose_mode(self, key: PRNGKey, belief: Belief) -> Belief:
        """Greedy on the outer Q where episodes begin, or any mode with probability epsilon."""
        starts = belief.starts + 1e-3 * belief.spec.state_mask
        worth = self.mode_values(belief, starts / starts.sum())
        best = jnp.argmax(worth).astype(jnp.int32)
        key_coin, key_mode = jax.random.split(key)
        other = jax.random.randint(key_mode, (), 0, worth.shape[0], jnp.int32)
        restless = jax.random.bernoulli(key_coin, self.epsilon)
        return belief._replace(mode=jnp.where(restless, other, best))

    def replan(self, belief: Belief, sweeps: int) -> Belief:
        """Embed the evidence, let z set the planner, and sweep ``sweeps`` times from the last plan."""
        known, trust = self.known(belief)
        mask = posterior_mask(belief.spec)
        z = self.embed(known, trust, belief.spec, belief.clock)
        values = state_values(belief.q, mask)
        settings = self.settings(z, belief.spec)
        op = operator(known, settings, trust, mask, jax.lax.stop_gradient(values))
        q = belief.q
        if sweeps > self.config.sweeps:
            q = jax.lax.fori_loop(0, sweeps, lambda _, q: sweep(op, q), q)
        else:
            for _ in range(sweeps):
                q = sweep(op, q)
        return belief._replace(q=q, z=z)

    def known(self, belief: Belief) -> tuple[Statistics, Float[Array, ""]]:
        """Posterior statistics and the trust in the prior, in [0, 1]."""
        if self.prior is None:
            return belief.evidence, jnp.zeros(())
        trust = jax.nn.sigmoid(belief.log_trust)
        return combine(belief.evidence, jax.lax.stop_gradient(self.prior), trust), trust

    def settings(self, z: Float[Array, " Z"], spec: TaskSpec) -> Settings:
        """The planner's settings: hand-set starting points, moved by z."""
        pseudo, unknown = self.tune(z).reshape(2, len(_OPTIMISM))
        start = jnp.asarray(_OPTIMISM)
        return Settings(
            optimism=start,
            discount=jnp.full(start.shape, task_discount(spec)),
            pseudo=jnp.exp(pseudo - 1.0),
            unknown=jnp.tanh(unknown + start * 0.2),
        )

    def with_epsilon(self, epsilon: float) -> BeliefQ:
        """The same learner, drawing this share of its modes at random."""
        return eqx.tree_at(lambda model: model.epsilon, self, jnp.asarray(epsilon))

    def with_prior(self, prior: Statistics | None) -> BeliefQ:
        """The same learner, starting from this family prior (None: from nothing)."""
        return eqx.tree_at(lambda model: model.prior, self, prior, is_leaf=lambda x: x is None)

    def channels(self, belief: Belief, state: Int[Array, ""]) -> Float[Array, "C A"]:
        """Every channel's Q at one state."""
        row = jax.nn.one_hot(state, belief.q.shape[1])
        return jnp.einsum("s,csa->ca", row, belief.q)

    def mode_values(self, belief: Belief, where: Float[Array, " S"]) -> Float[Array, " K"]:
        """Outer Q: minus the regret still to come in each mode, from a distribution over states on."""
        values = state_values(belief.q, posterior_mask(belief.spec)) @ where
        return self.modes(belief.z, values, spread_of(belief), reward_scale(belief.evidence))

    def outlook(self, belief: Belief, state: Int[Array, ""]) -> Outlook:
        """What is believed of Q* at one state."""
        visits = belief.evidence.pair.visits[state]
        channels = self.channels(belief, state)
        return self.head(channels, visits, belief.spec.action_mask, belief.z, spread_of(belief))

    def outlooks(self, belief: Belief) -> Outlook:
        """What is believed of Q* at every state, ``[S, A]`` each."""
        heads = jax.vmap(self.head, in_axes=(1, 0, None, None, None))
        visits = belief.evidence.pair.visits
        return heads(belief.q, visits, belief.spec.action_mask, belief.z, spread_of(belief))


TRUST_START, TRUST_LIMIT = 6.0, 20.0
"""Log-odds for the family prior before the first step, and its bounds."""


def task_discount(spec: TaskSpec) -> Float[Array, ""]:
    """``1 - 1/H``: the discount whose effective horizon is the task's."""
    return 1.0 - 1.0 / jnp.clip(spec.horizon.astype(jnp.float32), 2.0, LONGEST)


def spread_of(belief: Belief) -> Float[Array, ""]:
    """The unit of value differences this belief suggests; never zero, and it scales with rewards.

    The range of channel 0, or, while that is still flat, a twentieth of the reward scale.
    """
    mask = posterior_mask(belief.spec)
    q = jax.lax.stop_gradient(belief.q[0])
    high = jnp.where(mask, q, -jnp.inf).max()
    low = jnp.where(mask, q, jnp.inf).min()
    return jnp.maximum(high - low, 0.05 * reward_scale(belief.evidence))


def _judge_prior(belief: Belief, prior: Statistics, transition: Transition) -> Float[Array, ""]:
    """Add the log-ratio of how well the prior, and a flat Dirichlet, foresaw the next state."""
    num_states = belief.spec.state_mask.sum()
    own = belief.evidence.transitions[transition.state, transition.action]
    pseudo = prior.transitions[transition.state, transition.action]
    here = transition.next_state
    informed = (own[here] + pseudo[here] + 1e-3) / (own.sum() + pseudo.sum() + 1e-3 * num_states)
    flat = (own[here] + 1.0 / num_states) / (own.sum() + 1.0)
    change = jnp.clip(jnp.log(informed) - jnp.log(flat), -5.0, 5.0)
    return jnp.clip(belief.log_trust + change, -TRUST_LIMIT, TRUST_LIMIT / 2)
