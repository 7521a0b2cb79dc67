"""Options that several commands share, and how the text of an option becomes a value."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter, Token

from metaql.cli.output import Output
from metaql.config import check_seed
from metaql.errors import UsageError

COMMON = Group("Common options", sort_key=9)


def _whole(hint: Any, tokens: Sequence[Token]) -> int:
    """An integer, 2e6 too: by default a number with a fraction would be rounded."""
    del hint
    text = tokens[0].value
    try:
        number = float(text) if "e" in text.lower() else int(text)
        if number != int(number):
            raise ValueError
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a whole number.") from None
    return int(number)


def whole(**more: Any) -> Parameter:
    """What `Parameter` takes, for an option that counts something."""
    return Parameter(converter=_whole, **more)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Common:
    """Options every working command has."""

    seed: Annotated[int, whole(group=COMMON, help="Everything random follows from it.")] = 0
    json: Annotated[
        bool,
        Parameter(
            group=COMMON,
            negative=(),
            show_default=False,
            help="One JSON document on stdout, words on stderr.",
        ),
    ] = False
    quiet: Annotated[
        bool,
        Parameter(
            name=["--quiet", "-q"],
            group=COMMON,
            negative=(),
            show_default=False,
            help="No words on stderr.",
        ),
    ] = False
    runs_dir: Annotated[
        Path, Parameter(group=COMMON, help="Where runs are kept: RUNS_DIR/FAMILY/TIME-sSEED.")
    ] = Path("runs")

    def __post_init__(self) -> None:
        """Check what the type alone does not say.

        Raises:
            UsageError: a seed out of range.
        """
        check_seed(self.seed, "--seed")

    def output(self) -> Output:
        """The streams these options ask for."""
        return Output(as_json=self.json, quiet=self.quiet)


def key_values(pairs: Iterable[str], option: str) -> dict[str, Any]:
    """Read ``key=value`` pairs; values as TOML writes them, anything else is text.

    Raises:
        UsageError: a pair without ``=``, an empty key, or a key given twice.

    Example:
        >>> key_values(["size=8", "is_slippery=false", "map_name=8x8"], "--option")
        {'size': 8, 'is_slippery': False, 'map_name': '8x8'}
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UsageError(f"`{option}` takes key=value.", f"Got {pair!r}.")
        if key in values:
            raise UsageError(f"`{option}` takes each key once.", f"Got {key!r} twice.")
        values[key] = _value(text.strip())
    return values


def _value(text: str) -> Any:
    lowered = text.lower()
    if text.startswith("(") and text.endswith(")"):  # a pair as Python writes it
        listed = _value(f"[{text[1:-1]}]")
        return listed if isinstance(listed, list) else text
    if lowered in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[lowered]
    if lowered.lstrip("+-") == "nan":  # a number to TOML, to nobody else
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def sections(path: Path | None, known: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The tables of a configuration file, one entry per known name (empty where the file has none).

    Raises:
        ConfigError: the file is not TOML, or has a table nobody reads.
        UsageError: no such file.
    """
    from metaql.config import load_toml
    from metaql.errors import ConfigError, unknown_name

    names = tuple(known)
    content: Mapping[str, Any] = {} if path is None else load_toml(path)
    for name, table in content.items():
        if name not in names:
            error = unknown_name(f"A table of {path}", name, names)
            raise ConfigError(error.rule, error.evidence, error.remedy)
        if not isinstance(table, Mapping):
            raise ConfigError(f"`{name}` in {path} must be a table.", f"Got {table!r}.")
    return {name: dict(content.get(name, {})) for name in names}
