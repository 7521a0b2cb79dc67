"""Errors a user can act on: each states the rule, the evidence against it and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MetaQLError(Exception):
    """Base of every error raised on purpose. ``str(error)`` is rule, evidence and remedy in one text."""

    exit_code = 1

    def __init__(self, rule: str, evidence: str = "", remedy: str = "") -> None:
        self.rule, self.evidence, self.remedy = rule, evidence, remedy
        super().__init__(" ".join(part for part in (rule, evidence, remedy) if part))


class UsageError(MetaQLError):
    """The request itself is wrong (exit code 2): a name, an option, an argument."""

    exit_code = 2


class EndlessWarning(UserWarning):
    """An environment without a time limit: nothing but the agent's luck ends an episode."""


class InvalidTaskError(UsageError, ValueError):
    """Arrays that are not a finite MDP."""


class UnsupportedSpaceError(UsageError, TypeError):
    """An environment whose observation or action space this agent cannot use."""


class DatasetError(UsageError, ValueError):
    """Logged transitions that are incomplete, or are not those of a finite MDP."""


class UnknownNameError(UsageError, LookupError):
    """A family, agent, environment or split nobody registered."""


class ConfigError(UsageError, ValueError):
    """A configuration key or value that does not exist or does not fit."""


class CheckpointError(MetaQLError):
    """A checkpoint that is damaged, incomplete or of another format version."""


class NoAgentError(CheckpointError, UnknownNameError):
    """Nothing under this name or path is an agent."""


class EnvironmentFaultError(MetaQLError):
    """An environment that broke its own contract: NaN, a state outside its space, an exception."""


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Ask for the known name that is nearest to a mistyped one; ``otherwise`` where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean {near[0]!r}?" if near else otherwise


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Build the error for a mistyped name, with the nearest known one as remedy."""
    choices = sorted(known)
    rule = f"{kind} cannot be {name!r}."
    return UnknownNameError(rule, f"There are: {', '.join(choices)}.", did_you_mean(name, choices))
