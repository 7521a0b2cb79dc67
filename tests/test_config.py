"""A configuration is built as written, or the error says what to change."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from metaql.config import build, load_toml, to_dict
from metaql.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    rate: float = 1e-3
    name: Literal["adam", "sgd"] = "adam"


@dataclass(frozen=True, kw_only=True)
class Train:
    env_steps: int = 100
    gamma: float = 0.95
    verbose: bool = False
    label: str = ""
    sizes: tuple[int, ...] = (4,)
    slip_range: tuple[float, float] = (0.0, 0.5)
    clip: float | None = None
    out: Path = Path("runs")
    optimiser: Optimiser = Optimiser()
    family: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise ConfigError("`gamma` must be in [0, 1].", f"Got {self.gamma}.", "Use 0.95.")


@dataclass(frozen=True)
class Needs:
    states: int


def told(values: dict[str, Any], cls: type = Train) -> str:
    with pytest.raises(ConfigError) as caught:
        build(cls, values, "my.toml")
    assert caught.value.exit_code == 2
    assert "my.toml" in str(caught.value)
    return str(caught.value)


def test_a_toml_file_becomes_a_dataclass(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text(
        "env_steps = 1_000\ngamma = 1\nsizes = [3, 8]\nslip_range = [0, 0.3]\nclip = 2\n"
        "out = 'there'\n[optimiser]\nrate = 0.5\n[family]\nsize = 8\n"
    )
    config = build(Train, load_toml(path), str(path))
    assert config == Train(
        env_steps=1000,
        gamma=1.0,
        sizes=(3, 8),
        slip_range=(0.0, 0.3),
        clip=2.0,
        out=Path("there"),
        optimiser=Optimiser(rate=0.5),
        family={"size": 8},
    )
    assert type(config.gamma) is float
    assert type(config.clip) is float
    assert build(Train, to_dict(config)) == config
    assert to_dict(config)["slip_range"] == [0.0, 0.3]
    assert to_dict(config)["out"] == "there"


def test_a_typo_gets_the_near_match_and_the_list():
    text = told({"env_stesp": 5})
    assert text.startswith("my.toml cannot have 'env_stesp'. Keys there are: ")
    assert text.endswith("Did you mean 'env_steps'?")
    assert "gamma, label" in text
    inner = told({"optimiser": {"rte": 1}})
    assert inner.startswith("my.toml [optimiser] cannot have 'rte'.")
    assert inner.endswith("Did you mean 'rate'?")
    assert "Did you mean" not in told({"zzz": 5})


@pytest.mark.parametrize(
    ("values", "part"),
    [
        (
            {"env_steps": 1e6},
            "`env_steps` must be a whole number. my.toml has 1000000.0. Write 1_0",
        ),
        ({"env_steps": 1.5}, "whole number"),
        ({"env_steps": True}, "whole number"),
        ({"env_steps": "5"}, "whole number"),
        ({"gamma": True}, "a number"),
        ({"gamma": "0.9"}, "a number"),
        ({"gamma": math.nan}, "a number"),
        ({"gamma": 1.5}, "`gamma` must be in [0, 1]. Got 1.5. (my.toml) Use 0.95."),
        ({"verbose": 1}, "true or false"),
        ({"label": 3}, "text"),
        ({"out": 3}, "text"),
        ({"sizes": 4}, "a list"),
        ({"sizes": "44"}, "a list"),
        ({"sizes": [4, 0.5]}, "`sizes[1]` must be a whole number"),
        ({"slip_range": [0.1]}, "a list of 2 values"),
        ({"slip_range": 0.1}, "a list of 2 values. my.toml has 0.1. Write [0.1, 0.1]."),
        ({"clip": "no"}, "a number"),
        ({"optimiser": 3}, "Write it under a `[optimiser]` heading."),
        (
            {"optimiser": {"name": "adm"}},
            "one of 'adam', 'sgd'. my.toml [optimiser] has 'adm'. Did",
        ),
        ({"family": []}, "a table"),
    ],
)
def test_a_wrong_value_is_named(values, part):
    assert part in told(values)


def test_a_missing_value_is_named():
    assert "Needs needs a value for `states`." in told({}, Needs)
    assert build(Needs, {"states": 3}) == Needs(3)


def test_none_is_taken_where_it_is_allowed():
    assert build(Train, {"clip": None}).clip is None
    assert "whole number" in told({"env_steps": None})


def test_files_that_cannot_be_read_are_config_errors(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text("a = 1\nb = yes\n")
    with pytest.raises(ConfigError, match="line 2, column 5"):
        load_toml(path)
    path.write_bytes(b"a = '\xff'\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_toml(path)
    for missing in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(ConfigError, match="readable file"):
            load_toml(missing)
