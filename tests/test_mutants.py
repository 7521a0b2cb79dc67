"""The mutant script cannot rot: every fault still has its place, every test it names exists."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("mutants", ROOT / "benchmarks" / "mutants.py")
mutants = importlib.util.module_from_spec(SPEC)
sys.modules["mutants"] = mutants
SPEC.loader.exec_module(mutants)


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_the_fault_still_has_its_place_and_its_tests_exist(mutant):
    text = (ROOT / "src" / "metaql" / mutant.file).read_text()
    changed = mutants.mutated(mutant, text)
    assert changed != text
    compile(changed, mutant.file, "exec")
    assert mutant.tests
    for node in mutant.tests:
        file, name = node.split("[")[0].split("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text()


def test_there_are_enough_of_them_and_no_two_are_the_same():
    assert len(mutants.MUTANTS) >= 14
    assert len({mutant.name for mutant in mutants.MUTANTS}) == len(mutants.MUTANTS)
    assert len({(m.file, m.old, m.new) for m in mutants.MUTANTS}) == len(mutants.MUTANTS)


def test_a_text_that_is_gone_or_not_unique_is_an_error():
    mutant = mutants.MUTANTS[0]
    for text in ("", mutant.old * 2):
        with pytest.raises(ValueError, match="bring the mutant up to date"):
            mutants.mutated(mutant, text)
