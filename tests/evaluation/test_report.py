from __future__ import annotations

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from metaql.evaluation.plots import INK, learning_curves, q_map, q_table, spread, to_svg
from metaql.evaluation.report import Adaptation, Report, lake_grid
from metaql.evaluation.summary import summarise

MAP = ("SFFF", "FHFH", "FFFH", "HFFG")
VOID = {"meta", "br", "hr", "img", "link", "input"}


def findings(runs=30, episodes=12):
    rng = np.random.default_rng(0)

    def lives(rate):
        returns = (rng.random((runs, episodes)) < rate).astype(float)
        return SimpleNamespace(returns=returns, lengths=rng.integers(3, 60, (runs, episodes)))

    lived = {"meta-learned <agent>": lives(0.7), "PSRL": lives(0.2)}
    return lived, summarise(lived, {"optimum": 0.744}, score="success")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    _, found = findings()
    life = Adaptation(
        env="FrozenLake-v1",
        returns=np.array([0.0, 1.0]),
        lengths=np.array([12, 34]),
        q=np.arange(64.0).reshape(16, 4),
        grid=MAP,
    )
    report = Report(
        title="Lakes & more",
        summary="What happened.",
        findings=found,
        adaptation=life,
        command="metaql quickstart --seed 7",
        config={"train": {"env_steps": 1234}},
        versions={"gymnasium": "1.4.0"},
    )
    path = report.write(tmp_path_factory.mktemp("report") / "report.html")
    return path.read_text(encoding="utf-8")


class Checker(HTMLParser):
    """Collects the text, ids and tags, and holds that every element is closed in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.ids, self.tags, self.words = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_page_is_whole_html_with_unique_ids(page):
    found = Checker(page)
    assert found.open == []
    assert len(found.ids) == len(set(found.ids)) > 10


def test_nothing_is_fetched_and_nothing_runs(page):
    found = Checker(page)
    assert "http" not in page
    assert "@import" not in page
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in found.tags}
    targets = [attrs[key] for _, attrs in found.tags for key in ("href", "src") if key in attrs]
    assert all(target.startswith("#") for target in targets)
    assert {target[1:] for target in targets} <= set(found.ids), "every reference is in the page"
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(found.ids)


def test_page_holds_what_is_promised(page):
    words = " ".join(Checker(page).words)
    for text in (
        "Lakes & more",
        "meta-learned <agent>",
        "11-12",
        "0.744 (exact)",
        "metaql quickstart --seed 7",
        "1234",
        "gymnasium",
        "34 steps",
        "FrozenLake-v1",
        "episode of the lifetime",
        "environment steps of the lifetime",
    ):
        assert text in words, text
    assert "prefers-color-scheme:dark" in page
    assert 'name="viewport"' in page


def test_every_figure_says_what_it_shows(page):
    figures = [attrs for tag, attrs in Checker(page).tags if tag == "svg"]
    labels = [attrs["aria-label"] for attrs in figures]
    assert len(labels) == 3
    assert all(attrs["role"] == "img" for attrs in figures)
    assert "optimum is 0.74" in labels[0]
    assert "Greedy action by state: 0: 3, 1: 3" in labels[2]


def test_summary_blocks_are_means_over_episodes_and_lifetimes():
    lived, found = findings()
    returns = lived["PSRL"].returns
    assert found.blocks == ("1-2", "3-5", "6-10", "11-12")
    assert found.learners[1].cells[2].mean == pytest.approx(returns[:, 5:10].mean())
    assert found.as_dict()["levels"] == {"optimum": 0.744}
    assert found.by_episode["PSRL"].mean == pytest.approx(returns.mean(0))


def test_lake_grid_is_gymnasiums_default_map():
    ends = [cell in "HG" for cell in "".join(MAP)]
    assert lake_grid(ends, 4) == MAP


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_map_arrows_point_where_the_greedy_goes():
    q = np.zeros((4, 4))
    q[0] = (0.0, 0.0, 0.9, 0.1)
    q[2] = (0.0, -np.inf, 0.2, 0.7)
    assert texts(q_map(q, ("SH", "FG"))) == ["→", "start", "hole", "↑", "goal"]
    q[0] = 0.3
    assert texts(q_map(q, ("SH", "FG")))[0] == "·", "no arrow where all moves are worth the same"


def test_triangles_lie_on_the_side_their_action_moves_to():
    q = np.arange(4.0).reshape(1, 4)
    patches = q_map(q, ("F",)).axes[0].collections[0]
    centres = [tuple(path.vertices[:3].mean(0).round(2)) for path in patches.get_paths()]
    assert centres == [(0.17, 0.5), (0.5, 0.83), (0.83, 0.5), (0.5, 0.17)]
    colours = patches.get_facecolors()
    assert np.ptp(colours[0] - colours[3]) > 0.5


def test_table_marks_the_greedy_action_and_bears_unknown_values():
    q = np.array([[1.0, 2.0, -np.inf], [np.nan, -1.0, -3.0]])
    dots = q_table(q).axes[0].lines[0]
    assert dots.get_ydata().tolist() == [1.5, 1.5]
    assert "<svg" in to_svg(q_table(np.full((2, 2), np.nan)), name="x", description="y")


def test_labels_at_the_right_do_not_overlap():
    _, found = findings()
    figure = learning_curves(found.by_episode, {"a": 0.74, "b": 0.745}, x_label="x", y_label="y")
    heights = sorted(text.get_position()[1] for text in figure.axes[0].texts)
    assert min(np.diff(heights)) >= 0.06


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([0.1, 0.5], [0.1, 0.5]),
        ([0.1, 0.1, 0.9], [0.1, 0.3, 0.9]),
        ([0.9, 1.0, 1.0], [0.6, 0.8, 1.0]),
    ],
)
def test_spread(places, expected):
    assert spread(places, gap=0.2) == pytest.approx(expected)


def test_svg_is_the_same_every_time_and_takes_the_colours_of_the_page():
    _, found = findings()

    def draw():
        figure = learning_curves(found.by_episode, {}, x_label="x", y_label="y")
        return to_svg(figure, name="one", description='a "quoted" <word>')

    svg = draw()
    assert svg == draw()
    assert INK not in svg
    assert "currentColor" in svg
    assert "var(--c0, #0072b2)" in svg
    assert 'aria-label="a &quot;quoted&quot; &lt;word&gt;"' in svg


def test_map_colours_span_the_cells_where_something_is_chosen():
    q = np.zeros((4, 4))
    q[0, 2], q[2, 3] = 1.0, 0.5
    q[1] = 99.0  # what is believed of a hole must not wash out the rest
    patches = q_map(q, ("SH", "FG")).axes[0].collections[0]
    darkest, brightest = patches.get_facecolors()[[0, 2], 0]
    assert brightest - darkest > 0.9
