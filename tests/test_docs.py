"""What the pages include exists, and is written so that it is included."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_every_example_is_included_in_a_page(example):
    line = f'--8<-- "examples/{example.name}"'
    assert any(line in page.read_text().splitlines() for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_no_include_is_spoilt(page):
    """A formatter of code takes the dashes for operators."""
    for line in page.read_text().splitlines():
        if line.lstrip().startswith("--8"):
            assert re.fullmatch(r'--8<-- "[\w/]+\.py"', line)


def test_every_table_of_results_is_filled():
    page = (ROOT / "docs" / "results.md").read_text()
    found = re.findall(r"<!-- results: (.+?) -->(.*?)<!-- end: \1 -->", page, re.DOTALL)
    assert len(found) == page.count("<!-- results: ") >= 4
    assert all(text.count("\n|") > 3 for _, text in found)
