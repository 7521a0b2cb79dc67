from __future__ import annotations

import json

import numpy as np
import pytest

from metaql.cli.options import key_values
from metaql.cli.output import Output, number, plain
from metaql.errors import UsageError


def test_key_values_are_read_as_toml_else_as_text():
    pairs = ["a=8", "b=0.5", "c=false", "d=8x8", "e=[1, 2]", 'f="x=y"', "g=x=y", "h=None"]
    pairs += ["i=", "j=nan", "k=(2, 3)", "l=(2"]
    assert key_values(pairs, "--option") == {
        "a": 8, "b": 0.5, "c": False, "d": "8x8", "e": [1, 2], "f": "x=y", "g": "x=y", "h": None,
        "i": "", "j": "nan", "k": [2, 3], "l": "(2",
    }  # fmt: skip


@pytest.mark.parametrize("pairs", [["a"], ["=3"], ["a=1", "a=2"]])
def test_key_values_refuses(pairs):
    with pytest.raises(UsageError, match="--option"):
        key_values(pairs, "--option")


def test_plain_knows_arrays_and_has_no_nan():
    content = {"x": np.array([1.0, np.nan, -np.inf]), "y": (np.float32(0.5), np.int64(3)), 4: None}
    assert plain(content) == {"x": [1.0, None, None], "y": [0.5, 3], "4": None}


def test_json_mode_prints_only_the_document(capsys):
    output = Output(as_json=True)
    output.line("a result")
    output.table(("a",), [("b",)])
    output.say("words")
    output.document({"x": 1})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"x": 1}
    assert captured.err == "words\n"


def test_number():
    assert [number(x) for x in (0.0, -13.0, 7.93, 0.123456)] == ["0", "-13", "7.93", "0.1235"]
