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

from metaql.embedding.embed import Clock, TaskEmbedding, posterior_mask
from metaql.embedding.statistics import Statistics, combine, empty, observe, reward_scale
from metaql.policy.head import ModeHead, Outlook, QHead, constant
from metaql.policy.planner import (
    Settings,
    operator,
    state_values,
    surprise_unit,
    sweep,
    usual_value,
)
from metaql.types import Decision, PRNGKey, TaskSpec, Transition

LONGEST = 100.0
"""Horizons beyond this many steps are planned with the discount of this one."""
_OPTIMISM = (0.0, 0.1, 0.3, 1.0)
"""Optimism of each channel, in posterior standard deviations."""
_SURPRISE = (0.0, 0.1, 0.4, 2.0)
"""Hope of each channel for what was never tried, in `surprise_unit`s."""
_PSEUDO = 0.4
"""Pseudo-visits of the unknown, in units of `novelty`."""
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
    level: Float[Array, ""]
    """`usual_value` at the last plan, which its values are relative to."""
    spread: Float[Array, ""]
    """Unit of value differences, see `spread_of`."""
    stakes: Float[Array, ""]
    """Unit of what an episode may cost, `surprise_unit`."""
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
    """From z to what the planner's posterior mean makes of the unknown (raw)."""
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
        self.tune = constant(eqx.nn.Linear(config.embedding, 2, key=key_tune), jnp.zeros(2))
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
            level=jnp.zeros(()),
            spread=jnp.ones(()),
            stakes=jnp.ones(()),
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
        # Where the usual value moved, all values move with it at once: a few sweeps a step would take
        # hundreds of steps, and meanwhile all that is known would look better than the unknown.
        fade = 1.0 - task_discount(belief.spec)
        level = (1.0 - trust) * usual_value(known, fade)
        q = jnp.where(mask, belief.q + jax.lax.stop_gradient(level - belief.level), 0.0)
        if sweeps > self.config.sweeps:
            q = jax.lax.fori_loop(0, sweeps, lambda _, q: sweep(op, q), q)
        else:
            for _ in range(sweeps):
                q = sweep(op, q)
        spread, stakes = spread_of(q[0], known), surprise_unit(known, fade)
        return belief._replace(q=q, level=level, spread=spread, stakes=stakes, z=z)

    def known(self, belief: Belief) -> tuple[Statistics, Float[Array, ""]]:
        """Posterior statistics and the trust in the prior, in [0, 1]."""
        if self.prior is None:
            return belief.evidence, jnp.zeros(())
        trust = jax.nn.sigmoid(belief.log_trust)
        return combine(belief.evidence, jax.lax.stop_gradient(self.prior), trust), trust

    def settings(self, z: Float[Array, " Z"], spec: TaskSpec) -> Settings:
        """The planner's settings: hand-set; those of channel 0, the posterior mean, are moved by z.

        Only of them the supervised loss knows what is right. Trained along, the hopes of the other
        channels are fitted away, and with them goes exploring.
        """
        pseudo, unknown = self.tune(z)
        return Settings(
            optimism=jnp.asarray(_OPTIMISM),
            discount=jnp.full(len(_OPTIMISM), task_discount(spec)),
            pseudo=jnp.full(len(_OPTIMISM), _PSEUDO).at[0].multiply(jnp.exp(pseudo)),
            unknown=jnp.asarray(_SURPRISE).at[0].add(jnp.tanh(unknown)),
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
        return self.modes(belief.z, values, belief.spread, belief.stakes)

    def outlook(self, belief: Belief, state: Int[Array, ""]) -> Outlook:
        """What is believed of Q* at one state."""
        visits = belief.evidence.pair.visits[state]
        channels = self.channels(belief, state)
        return self.head(channels, visits, belief.spec.action_mask, belief.z, belief.spread)

    def outlooks(self, belief: Belief) -> Outlook:
        """What is believed of Q* at every state, ``[S, A]`` each."""
        heads = jax.vmap(self.head, in_axes=(1, 0, None, None, None))
        visits = belief.evidence.pair.visits
        return heads(belief.q, visits, belief.spec.action_mask, belief.z, belief.spread)


TRUST_START, TRUST_LIMIT = 6.0, 20.0
"""Log-odds for the family prior before the first step, and its bounds."""


def task_discount(spec: TaskSpec) -> Float[Array, ""]:
    """``1 - 1/H``: the discount whose effective horizon is the task's."""
    return 1.0 - 1.0 / jnp.clip(spec.horizon.astype(jnp.float32), 2.0, LONGEST)


def spread_of(q: Float[Array, "S A"], known: Statistics) -> Float[Array, ""]:
    """The unit of value differences that values suggest; never zero, and it scales with rewards.

    The range over pairs of which anything is known, or, while that is flat, a twentieth of the reward
    scale.
    """
    tried = known.transitions.sum(-1) > 0.5
    q = jax.lax.stop_gradient(q)
    high = jnp.where(tried, q, -jnp.inf).max()
    low = jnp.where(tried, q, jnp.inf).min()
    return jnp.maximum(jnp.where(tried.any(), high - low, 0.0), 0.05 * reward_scale(known))


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
