"""docs/schedules.md and its plots: current, complete, and right."""

from __future__ import annotations

import itertools
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs import draw_schedules
from studies.schedules import CATALOGUE, describe
from studies.schedules.base import Rates, Timeline
from studies.schedules.polynomial import Linear

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGE = (DOCS / "schedules.md").read_text()
PLOTS = sorted((DOCS / "schedules").glob("*.svg"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the page and its plots, to change."""
    copy = tmp_path / "docs"
    copy.mkdir()
    shutil.copy(DOCS / "schedules.md", copy)
    shutil.copytree(DOCS / "schedules", copy / "schedules")
    return copy


def complaints(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The files that the check calls out of date; its exit code says the same."""
    code = draw_schedules.main(["--check"], folder)
    lines = capsys.readouterr().out.splitlines()
    assert code == bool(lines)
    assert all(line.endswith("; run `make docs`") for line in lines)
    return sorted(line.split(" is ")[0] for line in lines)


# --- current


def test_page_and_plots_are_current() -> None:
    changed = [str(path.relative_to(ROOT)) for path in draw_schedules.out_of_date(DOCS)]
    assert changed == [], "run `make docs`"


def test_the_check_runs_as_a_script_without_the_packages_of_service_and_worker() -> None:
    heavy = ["keras", "tensorflow", "sklearn", "sqlalchemy", "fastapi", "optuna", "matplotlib"]
    blocked = f"import sys; sys.modules.update(dict.fromkeys({heavy}))"
    run = "import runpy; sys.argv[1:] = ['--check']; runpy.run_path('docs/draw_schedules.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", f"{blocked}; {run}"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_written_anew_has_the_same_bytes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(folder / "schedules")
    assert draw_schedules.main([], folder) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(PLOTS)
    written = {path.name: path.read_bytes() for path in (folder / "schedules").iterdir()}
    assert written == {path.name: path.read_bytes() for path in PLOTS}
    assert complaints(folder, capsys) == []


def test_a_changed_formula_is_out_of_date(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Linear, "formula", "eta0 * (1 - s/T)")
    assert complaints(folder, capsys) == ["docs/schedules.md"]
    draw_schedules.main([], folder)
    assert "eta0 * (1 - s/T)\n" in (folder / "schedules.md").read_text()
    capsys.readouterr()
    assert complaints(folder, capsys) == []


def test_a_changed_curve_is_out_of_date(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def falls_late(schedule: Linear, base_rate: float, timeline: Timeline) -> Rates:
        return base_rate * (1.0 - timeline.progress) ** 0.9

    monkeypatch.setattr(Linear, "rates", falls_late)
    assert complaints(folder, capsys) == ["docs/schedules/linear.svg"]


def test_a_plot_that_is_missing_edited_or_of_no_schedule_is_out_of_date(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plots = folder / "schedules"
    (plots / "cosine.svg").unlink()
    (plots / "rex.svg").write_text("<svg/>")
    (plots / "gone.svg").write_text("<svg/>")
    assert complaints(folder, capsys) == [f"docs/schedules/{name}.svg" for name in ("cosine", "gone", "rex")]
    draw_schedules.main([], folder)
    assert not (plots / "gone.svg").exists()
    capsys.readouterr()
    assert complaints(folder, capsys) == []


def test_prose_is_free_and_generated_parts_are_not(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = folder / "schedules.md"
    page.write_text(PAGE.replace("## Warm-up", "More prose.\n\n## Warm-up"))
    assert complaints(folder, capsys) == []
    page.write_text(PAGE.replace("### cosine\n", "### cosine\n\nMore prose.\n"))
    assert complaints(folder, capsys) == ["docs/schedules.md"]


def test_a_page_that_has_lost_a_mark_is_refused(folder: Path) -> None:
    page = folder / "schedules.md"
    page.write_text(PAGE.replace("<!-- end: index -->", ""))
    with pytest.raises(ValueError, match=r"schedules\.md: the lines '<!-- generated: index -->' and '<!-- end: index"):
        draw_schedules.main(["--check"], folder)


# --- complete


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_schedule_has_a_section_with_all_there_is_to_say(name: str) -> None:
    (section,) = re.findall(rf"^### {name}\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    info = describe(name)
    assert f"(schedules/{name}.svg)" in section
    assert f"```text\n{info.formula}\n```" in section
    for text in (info.summary, info.helps, info.pitfalls):
        assert text in section
    assert section.count("\n| `") == len(info.parameters)
    assert all(f"| `{parameter.name}` |" in section for parameter in info.parameters)
    assert all(parameter.description in section for parameter in info.parameters)
    # In the index, too.
    assert PAGE.count(f"| [{name}](#{name}) | {info.summary} |") == 1


def test_every_link_within_the_page_leads_to_a_heading() -> None:
    headings = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]+)\)", PAGE)
    assert len(links) > len(CATALOGUE)
    assert [link for link in links if link not in anchors] == []


def test_the_base_rates_of_every_optimizer_are_there() -> None:
    rows = dict(
        re.findall(r"^\| `(\w+)` \| ([\d.]+ to [\d.]+), log \|", PAGE.partition("## Base rates")[2], re.MULTILINE)
    )
    assert rows == {
        "sgd": "0.001 to 1",
        "adam": "0.00001 to 0.03",
        "adamw": "0.00001 to 0.03",
        "rmsprop": "0.00001 to 0.03",
        "adagrad": "0.001 to 1",
        "adadelta": "0.01 to 10",
    }


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.stem)
def test_every_plot_is_small_well_formed_and_told_in_words(plot: Path) -> None:
    text = plot.read_text()
    assert len(text) < 6000
    assert "@media(prefers-color-scheme:dark)" in text
    svg = ElementTree.fromstring(text)
    title, description = svg[0], svg[1]
    assert svg.get("role") == "img"
    assert svg.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert title.text == {"warmup": "warm-up"}.get(plot.stem, plot.stem)
    assert description.text is not None
    assert len(description.text) > 40


# --- right: the curves against formulas written here


EDGE, PLOT_WIDTH = 120, 1000
OPEN_BOTTOM, OPEN_HEIGHT = 356, 300


def curve(name: str, line: str = "rate") -> list[tuple[int, int]]:
    """The corners of a plot's line, in units."""
    (drawn,) = re.findall(rf'<path class="{line}" d="M([^"]+)"/>', (DOCS / "schedules" / f"{name}.svg").read_text())
    start, _, moves = drawn.partition("l")
    x, y = map(int, start.split())
    corners = [(x, y)]
    numbers = [int(number) for number in re.findall(r"-?\d+", moves)]
    for dx, dy in zip(numbers[::2], numbers[1::2], strict=True):
        x, y = x + dx, y + dy
        corners.append((x, y))
    return corners


def at(corners: list[tuple[int, int]], x: float) -> float:
    """The height of a line at x."""
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        if x0 <= x < x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    raise AssertionError(f"nothing is drawn at {x}")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", lambda u: 1.0),
        ("linear", lambda u: 1.0 - u),
        ("polynomial", lambda u: (1.0 - u) ** 2),
        ("cosine", lambda u: (1.0 + math.cos(math.pi * u)) / 2),
        ("exponential", lambda u: 0.01**u),
        ("inverse_time", lambda u: 1.0 / (1.0 + 10.0 * u)),
        ("tanh", lambda u: (1.0 - math.tanh(-7.0 + 10.0 * u)) / 2),
        ("rex", lambda u: (1.0 - u) / (1.0 - u / 2)),
        ("cyclical", lambda u: 0.1 + 0.9 * (1.0 - abs(2.0 * (4.0 * u % 1.0) - 1.0))),
        ("wsd", lambda u: 1.0 if u < 0.8 else 1.0 - math.sqrt(5.0 * (u - 0.8))),
        ("warmup", lambda u: u / 0.15 if u < 0.15 else (1.0 + math.cos(math.pi * (u - 0.15) / 0.85)) / 2),
    ],
)
def test_a_plot_shows_the_formula(name: str, expected: Callable[[float], float]) -> None:
    corners = curve(name)
    assert corners[0][0] == EDGE
    assert corners[-1][0] == EDGE + PLOT_WIDTH * 999 // 1000
    for step in range(1, 999):
        u = step / 1000
        # Straight lines through whole units, two to a pixel; a step of the steepest curves is some units high.
        steepest = OPEN_HEIGHT * max(abs(expected(u + d) - expected(u)) for d in (-1e-3, 1e-3))
        height = OPEN_BOTTOM - at(corners, EDGE + PLOT_WIDTH * u)
        assert height == pytest.approx(OPEN_HEIGHT * expected(u), abs=1.5 + steepest), f"at {u}"


def test_stairs_are_drawn_where_they_are() -> None:
    drops = [(x, y, below) for (x, y), (_, below) in itertools.pairwise(curve("step")) if below - y > 5]
    # To a tenth at the first epoch past a third of the 20, to a hundredth past two thirds.
    assert drops == [
        (EDGE + 7 * 50 - 1, OPEN_BOTTOM - 300, OPEN_BOTTOM - 30),
        (EDGE + 14 * 50 - 1, OPEN_BOTTOM - 30, OPEN_BOTTOM - 3),
    ]


def test_the_made_up_loss_is_as_the_page_says() -> None:
    early, late = (line.split("  ")[0] for line in draw_schedules.MADE_UP.splitlines())
    assert f"```text\n{draw_schedules.MADE_UP}\n```" in PAGE
    for epoch in range(80):
        assert draw_schedules.made_up_loss(epoch) == eval(early if epoch < 50 else late, {"epoch": epoch})


def turns(name: str) -> list[int]:
    """The epochs in which a closed-loop plot's rate jumps."""
    corners = curve(name)
    jumps = [x0 for (x0, _), (x1, _) in itertools.pairwise(corners) if x0 == x1]
    return [round((x - EDGE) * 80 / PLOT_WIDTH) for x in jumps]


def test_plateaus_are_drawn_where_the_made_up_loss_has_them() -> None:
    # It is lowest in epoch 19 and in epoch 64; ten epochs without improvement are over with 29, 39, 49 and 74.
    assert turns("reduce_on_plateau") == [30, 40, 50, 75]
    # The third would fall below a hundredth: back to the base rate.
    assert turns("plateau_with_revert") == [30, 40, 50, 75]
    heights = {y for _, y in curve("plateau_with_revert")}
    assert len(heights) == 3
    # Three epochs without improvement, then a cut in each; 0.5, 0.5^3, 0.5^6, then the floor.
    assert turns("adaptive_validation")[:4] == [23, 24, 25, 26]
    assert "ends here" in (DOCS / "schedules" / "adaptive_validation.svg").read_text()
