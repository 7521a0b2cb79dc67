"""Configuration: a TOML file becomes a frozen dataclass, or an error that says what to change."""

from __future__ import annotations

import dataclasses
import math
import os
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, TypeVar

from metaql.errors import ConfigError, UsageError, did_you_mean

Config = TypeVar("Config")
_SEEDS = 2**32


def load_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a TOML file; tables (``[train]``, ``[family]``) become nested dicts.

    Raises:
        ConfigError: the file cannot be read or is not TOML (with line and column).
    """
    try:
        return tomllib.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            "The configuration must be a readable file.", f"{path}: {reason}.", "Check the path."
        ) from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ConfigError(
            "The configuration must be TOML in UTF-8.",
            f"{path}: {error}.",
            'Write `key = value` lines under `[table]` headings; text needs "quotes".',
        ) from error


def check_seed(seed: Any, name: str = "seed") -> None:
    """Raise `UsageError` unless it is a whole number of 32 bits: of larger ones the rest would not count."""
    if not _is_whole(seed) or not 0 <= seed < _SEEDS:
        raise UsageError(
            f"`{name}` must be a whole number from 0 to {_SEEDS - 1:,}.", f"Got {seed!r}."
        )


def check_whole(name: str, value: Any, least: int) -> None:
    """Raise `UsageError` unless ``value`` is an integer, at least ``least``."""
    if not _is_whole(value) or value < least:
        raise UsageError(f"`{name}` must be an integer, at least {least}.", f"Got {value!r}.")


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def build(cls: type[Config], values: Mapping[str, Any], source: str = "the arguments") -> Config:
    """Build a dataclass from plain values, each checked against the field's annotation.

    An int is taken for a float, a list for a tuple, a string for a path, a table for a dataclass; a
    bool is never a number and NaN never a value. Ranges are the business of ``cls.__post_init__``.

    Args:
        cls: a dataclass; its ``init`` fields are the keys.
        values: plain values, as from TOML, JSON or the command line.
        source: where they come from, for error messages.

    Raises:
        ConfigError: an unknown or missing key, or a value of the wrong type or range.
    """
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in values:
        _check_key(key, fields, source)
    needed = [name for name, field in fields.items() if _required(field) and name not in values]
    if needed:
        raise ConfigError(
            f"{cls.__name__} needs a value for `{needed[0]}`.", f"{source} gives none."
        )
    hints = typing.get_type_hints(cls)
    fitted = {key: _fit(hints[key], value, key, source) for key, value in values.items()}
    try:
        return cls(**fitted)
    except ConfigError as error:
        raise ConfigError(error.rule, f"{error.evidence} ({source})", error.remedy) from error


def to_dict(config: Any) -> dict[str, Any]:
    """The values of a dataclass in plain JSON and TOML types; `build` takes them back."""
    return {
        field.name: _to_plain(getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.init
    }


def _to_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {key: _to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_to_plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _check_key(key: str, fields: Mapping[str, Any], source: str) -> None:
    if key in fields:
        return
    raise ConfigError(
        f"{source} cannot have {key!r}.",
        f"Keys there are: {', '.join(sorted(fields)) or 'none'}.",
        did_you_mean(key, fields, "Remove it."),
    )


def _misfit(expected: str, value: Any, key: str, source: str, remedy: str = "") -> ConfigError:
    return ConfigError(f"`{key}` must be {expected}.", f"{source} has {value!r:.60}.", remedy)


def _fit(hint: Any, value: Any, key: str, source: str) -> Any:
    """``value`` as the annotation wants it. Annotations not listed here accept anything."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _fit_union(hint, value, key, source)
    if origin is typing.Literal:
        return _fit_literal(hint, value, key, source)
    if hint is tuple or origin in (tuple, list, Sequence):
        return _fit_sequence(hint, value, key, source)
    if hint is dict or origin in (dict, Mapping):
        return _fit_table(hint, value, key, source)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _fit_dataclass(hint, value, key, source)
    return _fit_scalar(hint, value, key, source)


def _fit_union(hint: Any, value: Any, key: str, source: str) -> Any:
    options = [option for option in typing.get_args(hint) if option is not types.NoneType]
    if value is None and len(options) < len(typing.get_args(hint)):
        return None
    for option in options:
        try:
            return _fit(option, value, key, source)
        except ConfigError:
            if option is options[-1]:
                raise
    return value


def _fit_literal(hint: Any, value: Any, key: str, source: str) -> Any:
    choices = typing.get_args(hint)
    if value in choices and type(value) in {type(choice) for choice in choices}:
        return value
    remedy = did_you_mean(str(value), map(str, choices))
    raise _misfit(f"one of {', '.join(map(repr, choices))}", value, key, source, remedy)


def _fit_sequence(hint: Any, value: Any, key: str, source: str) -> Any:
    args = typing.get_args(hint)
    fixed = typing.get_origin(hint) is tuple and Ellipsis not in args
    expected = f"a list of {len(args)} values" if fixed else "a list"
    if not isinstance(value, (list, tuple)):
        example = [f"{value}"[:20]] * (len(args) if fixed else 1)
        raise _misfit(expected, value, key, source, f"Write [{', '.join(example)}].")
    if fixed and len(args) != len(value):
        raise _misfit(expected, value, key, source)
    wanted = args if fixed else [args[0] if args else Any] * len(value)
    items = [
        _fit(item, each, f"{key}[{i}]", source)
        for i, (item, each) in enumerate(zip(wanted, value, strict=True))
    ]
    return items if typing.get_origin(hint) is list else tuple(items)


def _fit_table(hint: Any, value: Any, key: str, source: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _misfit("a table", value, key, source, f"Write it under a `[{key}]` heading.")
    item = (typing.get_args(hint) or (str, Any))[1]
    return {name: _fit(item, each, f"{key}.{name}", source) for name, each in value.items()}


def _fit_dataclass(hint: type, value: Any, key: str, source: str) -> Any:
    if isinstance(value, hint):
        return value
    return build(hint, _fit_table(dict, value, key, source), f"{source} [{key}]")


def _fit_scalar(hint: Any, value: Any, key: str, source: str) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is float:
        if not number or not math.isfinite(value):
            raise _misfit("a number that is finite", value, key, source)
        return float(value)
    if hint is int and not (number and isinstance(value, int)):
        whole = isinstance(value, float) and value.is_integer()
        remedy = f"Write {int(value):_}." if whole else ""
        raise _misfit("a whole number", value, key, source, remedy)
    if hint is bool and not isinstance(value, bool):
        raise _misfit("true or false", value, key, source)
    if hint in (str, Path) and not isinstance(value, (str, hint)):
        raise _misfit("text", value, key, source, 'Write it in "quotes".')
    return Path(str(value)) if hint is Path else value
