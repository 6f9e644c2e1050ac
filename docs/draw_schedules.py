"""Writes what is generated in docs/schedules.md, and the plots beside it, from the models of the catalogue.

    python docs/draw_schedules.py            # write what is out of date
    python docs/draw_schedules.py --check    # write nothing; exit code 1, naming each file that is out of date

The page is written by hand but for its parts between `<!-- generated: NAME -->` and `<!-- end: NAME -->`. The
same catalogue gives the same bytes, on any machine: numbers are rounded before they are written.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from studies.optimizers import OPTIMIZERS
from studies.parameters import ParameterInfo
from studies.preview import trace
from studies.schedules import CATALOGUE, ClosedLoop, OpenLoop, Schedule, describe, make
from studies.schedules.table import rate_table

HERE = Path(__file__).parent
PAGE = "schedules.md"
PLOTS = "schedules"
WARMUP_PLOT = "warmup.svg"

Points = NDArray[np.float64]
"""float64 (n, 2): x and y of a curve's points."""


# --- what is drawn


STEPS_PER_EPOCH = 50
EPOCHS = 20
LONGER = {"expression": 90}
"""Epochs of the plots in which 20 would show nothing: the default formula drops after 30."""

MADE_UP_EPOCHS = 80
MADE_UP = """\
0.4 + 0.6 * 0.8 ** epoch + 0.002 * epoch               for epoch < 50
0.3 + 0.2 * 0.8 ** (epoch - 50) + 0.002 * (epoch - 50)   from then on"""
"""The validation loss that closed-loop schedules are shown, in the words of the page."""

WARMUP = 0.15


def made_up_loss(epoch: int) -> float:
    """The validation loss after an epoch that closed-loop schedules are shown: `MADE_UP`."""
    if epoch < 50:
        return 0.4 + 0.6 * 0.8**epoch + 0.002 * epoch
    return 0.3 + 0.2 * 0.8 ** (epoch - 50) + 0.002 * (epoch - 50)


def plot(name: str) -> str:
    """The SVG of a schedule at its default parameters."""
    schedule = make(name)
    if isinstance(schedule, ClosedLoop):
        return _closed_loop_plot(schedule)
    assert isinstance(schedule, OpenLoop)
    return _open_loop_plot(schedule, LONGER.get(name, EPOCHS))


def warmup_plot() -> str:
    """The SVG of a cosine behind a warm-up, and, muted, of the same without."""
    schedule = make("cosine")
    assert isinstance(schedule, OpenLoop)
    axis = Axis(EPOCHS)
    panel = Panel("rate / base rate", top=0, height=300, low=0.0, high=1.0, ticks=(0.0, 0.5, 1.0))
    without, with_it = (_table(schedule, EPOCHS, warmup) for warmup in (0.0, WARMUP))
    lines = [*panel.frame(axis), panel.line(axis, without, muted=True), panel.line(axis, with_it)]
    return _svg(
        "warm-up",
        f"A cosine over {EPOCHS} epochs. In the first {WARMUP:.0%} of training the rate rises in a straight line to "
        "the base rate; the whole cosine follows. The thin line is the same cosine without a warm-up.",
        axis,
        panel.bottom,
        lines,
    )


def _open_loop_plot(schedule: OpenLoop, epochs: int) -> str:
    rates = _table(schedule, epochs)
    values = rates[:, 1]
    top = 1.0 if values.max() <= 1.02 else float(np.ceil(values.max()))
    axis = Axis(epochs)
    panel = Panel(
        "rate / base rate",
        top=0,
        height=300,
        low=0.0,
        high=top,
        ticks=(0.0, 0.5, 1.0) if top == 1.0 else tuple(map(float, range(int(top) + 1))),
    )
    return _svg(
        schedule.type,
        f"The learning rate over {epochs} epochs of {STEPS_PER_EPOCH} steps, as a fraction of the base rate: first "
        f"{_number(values[0])}, highest {_number(values.max())}, lowest {_number(values.min())}, "
        f"last {_number(values[-1])}.",
        axis,
        panel.bottom,
        [*panel.frame(axis), panel.line(axis, rates)],
    )


def _closed_loop_plot(schedule: ClosedLoop) -> str:
    losses = np.array([made_up_loss(epoch) for epoch in range(MADE_UP_EPOCHS)])
    metrics = [{schedule.monitor: float(loss)} for loss in losses]
    values, stopped = trace(schedule, 1.0, metrics, warmup=0.0, steps_per_epoch=1)
    # The rate of an epoch holds from its beginning to its end; a metric is known at the end.
    begins = np.arange(float(len(values)))
    rates = np.stack([np.stack([begins, begins + 1], axis=1).ravel(), np.repeat(values, 2)], axis=1)
    seen = np.stack([np.arange(1, len(losses) + 1), losses], axis=1)

    axis = Axis(MADE_UP_EPOCHS)
    loss_panel = Panel(f"{schedule.monitor}, made up", top=0, height=120, low=0.25, high=1.0, ticks=(0.5, 1.0))
    decades = tuple(10.0**power for power in range(-8, 4))
    lowest = max(decade for decade in decades if decade <= values.min() * 1.001)
    highest = min(decade for decade in decades if decade >= values.max() * 0.999)
    rate_panel = Panel(
        "rate / base rate",
        top=loss_panel.bottom + 64,
        height=240,
        low=lowest * 0.8,
        high=highest,
        ticks=tuple(decade for decade in decades if lowest <= decade <= highest),
        log=True,
    )
    lines = [
        *loss_panel.frame(axis),
        loss_panel.line(axis, seen, muted=True),
        *rate_panel.frame(axis),
        rate_panel.line(axis, rates),
    ]
    ended = ""
    if stopped is not None:
        lines.append(rate_panel.note(axis, float(stopped + 1), float(values[-1]), "ends here"))
        ended = f" The schedule ends the training after epoch {stopped}."
    changes = int(np.count_nonzero(np.diff(values)))
    return _svg(
        schedule.type,
        f"Above, {schedule.monitor} over {MADE_UP_EPOCHS} epochs, made up. Below, on a logarithmic scale, the learning "
        f"rate as a fraction of the base rate: it changes {changes} times, between {_number(values.min())} and "
        f"{_number(values.max())}, and is {_number(values[-1])} at last.{ended}",
        axis,
        rate_panel.bottom,
        lines,
    )


def _table(schedule: OpenLoop, epochs: int, warmup: float = 0.0) -> Points:
    steps = epochs * STEPS_PER_EPOCH
    rates = rate_table(schedule, 1.0, warmup=warmup, steps=steps, steps_per_epoch=STEPS_PER_EPOCH)
    return np.stack([np.arange(steps) / STEPS_PER_EPOCH, rates.astype(np.float64)], axis=1)


# --- how it is drawn: whole units, two of them to a pixel


LEFT, TOP, WIDTH, RIGHT, BELOW = 120, 56, 1000, 40, 84
COARSENESS = 0.25
"""A point of a curve this near to the line between its neighbours is left out; in units."""

STYLE = """\
text{font:26px system-ui,sans-serif;fill:#57606a}
.grid{stroke:#d0d7de;stroke-width:2}
.rate{stroke:#0969da;stroke-width:5}
.other{stroke:#8c959f;stroke-width:3}
path{fill:none;stroke-linejoin:round}
@media(prefers-color-scheme:dark){text{fill:#9198a1}.grid{stroke:#3d444d}.rate{stroke:#4493f8}.other{stroke:#818b98}}"""


@dataclass(frozen=True)
class Axis:
    """The epochs, from left to right."""

    epochs: int

    def x(self, epoch: float) -> float:
        """Where an epoch begins, in units."""
        return LEFT + WIDTH * epoch / self.epochs

    def labels(self, bottom: int) -> list[str]:
        """Numbers under the lowest panel, at fourths or else at thirds, and what they count."""
        parts = 3 if self.epochs % 4 else 4
        at = [self.epochs * part // parts for part in range(parts + 1)]
        texts = [_text(self.x(epoch), bottom + 32, str(epoch), anchor="middle") for epoch in at]
        return [*texts, _text(LEFT + WIDTH / 2, bottom + 68, "epoch", anchor="middle")]


@dataclass(frozen=True)
class Panel:
    """A rectangle with a scale from bottom to top; `top` is counted from the top of the first."""

    label: str
    top: int
    height: int
    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    @property
    def bottom(self) -> int:
        """Its lower edge, in units."""
        return self.top + self.height

    def y(self, value: float) -> float:
        """Where a value is, in units."""
        scale = np.log10 if self.log else np.asarray
        low, high, at = scale([self.low, self.high, value]).tolist()
        return TOP + self.bottom - self.height * (at - low) / (high - low)

    def frame(self, axis: Axis) -> list[str]:
        """A line and a number for each tick, and the label above."""
        parts = [_text(LEFT, self.top + TOP - 20, self.label)]
        for tick in self.ticks:
            y = self.y(tick)
            parts.append(f'<path class="grid" d="M{LEFT} {_unit(y)}h{WIDTH}"/>')
            parts.append(_text(LEFT - 14, y + 9, f"{tick:g}", anchor="end"))
        return parts

    def line(self, axis: Axis, points: Points, *, muted: bool = False) -> str:
        """A curve; a muted one is what the other goes by."""
        drawn = np.array([(axis.x(x), self.y(y)) for x, y in points])
        kept = np.array([[_unit(x), _unit(y)] for x, y in drawn[_needed(drawn, COARSENESS)]])
        (x, y), moves = kept[0], np.diff(kept, axis=0)
        moved = " ".join(f"{dx} {dy}" for dx, dy in moves[moves.any(axis=1)]).replace(" -", "-")
        return f'<path class="{"other" if muted else "rate"}" d="M{x} {y}l{moved}"/>'

    def note(self, axis: Axis, epoch: float, value: float, words: str) -> str:
        """A few words above a point, to the right."""
        return _text(axis.x(epoch), self.y(value) - 14, words)


def _needed(points: Points, tolerance: float) -> NDArray[np.intp]:
    """The points that a polyline needs to stay within `tolerance` of them all: Douglas and Peucker 1973."""
    needed = np.zeros(len(points), dtype=bool)
    needed[[0, -1]] = True
    spans = [(0, len(points) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        start, direction = points[first], points[last] - points[first]
        away = points[first + 1 : last] - start
        along = np.clip(away @ direction / max(float(direction @ direction), 1e-12), 0.0, 1.0)
        # Rounded, so that the last bit of a cosine, which machines differ in, decides nothing.
        distance = np.hypot(*(away - along[:, None] * direction).T).round(6)
        farthest = first + 1 + int(distance.argmax())
        if distance.max() > tolerance:
            needed[farthest] = True
            spans += [(first, farthest), (farthest, last)]
    return np.flatnonzero(needed)


def _svg(title: str, description: str, axis: Axis, bottom: int, parts: Iterable[str]) -> str:
    width, height = LEFT + WIDTH + RIGHT, TOP + bottom + BELOW
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width // 2}" height="{height // 2}" role="img" aria-labelledby="title desc">',
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="desc">{escape(description)}</desc>',
            f"<style>\n{STYLE}\n</style>",
            *parts,
            *axis.labels(TOP + bottom),
            "</svg>\n",
        ]
    )


def _text(x: float, y: float, words: str, *, anchor: str = "start") -> str:
    where = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{_unit(x)}" y="{_unit(y)}"{where}>{escape(words)}</text>'


def _unit(position: float) -> int:
    return round(round(float(position), 6))


# --- what is written


def families() -> dict[str, list[str]]:
    """The types of the catalogue under the title of their family, the first words of their module."""
    found: dict[str, list[str]] = {}
    for name, model in CATALOGUE.items():
        module = sys.modules[model.__module__]
        found.setdefault(re.split(r"[.:;]", module.__doc__ or "")[0], []).append(name)
    return found


def index() -> str:
    """A table of all types, each with a link to its section."""
    rows = [
        (f"[{name}](#{name})", describe(name).summary, _searched(name))
        for names in families().values()
        for name in names
    ]
    return _markdown_table(("schedule", "what it does", "searched by default"), rows)


def catalogue() -> str:
    """A section per type, under its family."""
    parts: list[str] = []
    for family, names in families().items():
        parts += [f"## {family}", *(section(name) for name in names)]
    return "\n\n".join(parts)


def section(name: str) -> str:
    """All there is to say about one type."""
    info, model = describe(name), CATALOGUE[name]
    summary, _, rest = info.description.partition("\n")
    parts = [
        f"### {name}",
        summary,
        f"![{name}: {_caption(model, name)}]({PLOTS}/{name}.svg)",
        f"```text\n{info.formula}\n```",
        rest.strip(),
        f"**When it helps.** {info.helps}",
        f"**Pitfalls.** {info.pitfalls}",
    ]
    if info.parameters:
        rows = [
            (f"`{parameter.name}`", _default(parameter), _domain(parameter.search) or "no", _meaning(parameter))
            for parameter in info.parameters
        ]
        parts.append(_markdown_table(("parameter", "default", "searched by default", "what it is"), rows))
    else:
        parts.append("It has no parameters.")
    parts.append(f"Source: {_linked(info.source)}.")
    return "\n\n".join(part for part in parts if part)


def base_rates() -> str:
    """A table of the optimizers with the base rates that are searched."""
    domains = describe("constant").learning_rate
    rows = [
        (f"`{name}`", _domain(domains[name]), _linked((model.__doc__ or "").strip()))
        for name, model in OPTIMIZERS.items()
    ]
    return _markdown_table(("optimizer", "base rates searched by default", "what it is"), rows)


def aliases() -> str:
    """A table of the types that are others in other words."""
    rows = [
        (
            f"[{name}](#{name})",
            f"[{model.alias_of}](#{model.alias_of})",
            (model.in_terms_of_alias.__doc__ or "").strip(),
        )
        for name, model in CATALOGUE.items()
        if model.alias_of is not None
    ]
    return _markdown_table(("type", "is", "with"), rows)


def made_up() -> str:
    """The sequence that closed-loop schedules are shown."""
    return f"```text\n{MADE_UP}\n```"


PARTS: dict[str, Callable[[], str]] = {
    "index": index,
    "catalogue": catalogue,
    "made-up loss": made_up,
    "base rates": base_rates,
    "aliases": aliases,
}


def page(text: str) -> str:
    """The page with its generated parts made anew. Raises ValueError, naming the part whose marks are not there."""
    for name, part in PARTS.items():
        begin, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
        before, begin_found, rest = text.partition(begin)
        _, end_found, after = rest.partition(end)
        if not (begin_found and end_found):
            raise ValueError(f"{PAGE}: the lines {begin!r} and {end!r} must be there, in this order")
        text = f"{before}{begin}\n\n{part()}\n\n{end}{after}"
    return text


def _caption(model: type[Schedule], name: str) -> str:
    if model.loop == "closed":
        return "the rate at default parameters, on a made-up validation loss"
    return f"the rate over {LONGER.get(name, EPOCHS)} epochs, at default parameters"


def _searched(name: str) -> str:
    if describe(name).own_parameters:
        return "parameters of your own"
    return ", ".join(f"`{info.name}`" for info in describe(name).parameters if _domain(info.search)) or "nothing"


def _default(parameter: ParameterInfo) -> str:
    match parameter.default:
        case None:
            return "none"
        case bool():
            return "yes" if parameter.default else "no"
        case str():
            return f"`{parameter.default}`"
        case number:
            return _plain(number)


def _meaning(parameter: ParameterInfo) -> str:
    told = parameter.description + _domain(parameter.search)
    options = [str(option) for option in parameter.options or ()]
    if all(option in told for option in options):
        return parameter.description
    return f"{parameter.description}: {', '.join(f'`{option}`' for option in options)}"


def _domain(search: Any) -> str:
    """A domain in words; nothing for a fixed value."""
    if isinstance(search, dict):
        low, high = (end if isinstance(end, str) else _plain(end) for end in (search["low"], search["high"]))
        return f"{low} to {high}{', log' if search.get('log') else ''}"
    if isinstance(search, list):
        return ", ".join(f"`{value}`" if isinstance(value, str) else _plain(value) for value in search)
    return ""


def _plain(number: float) -> str:
    """Four significant digits, without an exponent: 10000 and 0.00001."""
    if float(number).is_integer():
        return f"{number:.0f}"
    return np.format_float_positional(float(f"{number:.4g}"), trim="-")


def _markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def _linked(source: str) -> str:
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[\g<0>](https://arxiv.org/abs/\1)", source)


def _number(value: float) -> str:
    return f"{round(float(value), 9):.3g}"


# --- writing and checking


def files(folder: Path) -> dict[Path, str]:
    """Every generated file and what should be in it."""
    wanted = {folder / PLOTS / f"{name}.svg": plot(name) for name in CATALOGUE}
    wanted[folder / PLOTS / WARMUP_PLOT] = warmup_plot()
    wanted[folder / PAGE] = page((folder / PAGE).read_text())
    return wanted


def out_of_date(folder: Path) -> dict[Path, str | None]:
    """The files that are not as they should be, with what should be in them; None for a plot of no schedule."""
    wanted = files(folder)
    changed: dict[Path, str | None] = {
        path: text for path, text in wanted.items() if not path.exists() or path.read_text() != text
    }
    left_over = set((folder / PLOTS).glob("*.svg")) - set(wanted)
    return changed | dict.fromkeys(sorted(left_over))


def main(arguments: Sequence[str] | None = None, folder: Path = HERE) -> int:
    """Write what is out of date, or name it."""
    parser = argparse.ArgumentParser(description="Draw the catalogue of schedules for docs/schedules.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something is out of date")
    check = parser.parse_args(arguments).check
    changed = out_of_date(folder)
    for path, text in changed.items():
        name = path.relative_to(folder.parent)
        if check:
            print(f"{name} is {'out of date' if text is not None else 'no plot of any schedule'}; run `make docs`")
        elif text is None:
            path.unlink()
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            print(f"wrote {name}")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
