"""The report's figures as PNG bytes: WER by cohort and by speaker, load of the experts, learning curves."""

import io
import math
import textwrap

import numpy as np

from moejax.report import roles, study_page
from moejax.report.findings import Findings
from moejax.score.tables import FEW, Table

BETTER, WORSE, NEUTRAL = "#2f9e6e", "#c8324a", "#9aa0a8"
WIDTH = 6.4  # inches; narrow, so that a telephone need not shrink the letters below reading
ROW = 0.24  # inches of a line of text
NAME = 16  # letters of a cohort's name in one line, where there is room for several
PLATE = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}  # behind numbers on lines
CLIP = 110  # percent: a system that loops has 300 % and more, and would press all others against the axis


def draw(found: Findings) -> dict[str, bytes]:
    """{name: PNG} of the figures that there is something to draw for."""
    drawn = {"wer_by_cohort": by_cohort(found.table, found.main)}
    before = roles.start(found.main)
    if found.table.names("speaker") and found.focus != before:
        drawn["wer_by_speaker"] = by_speaker(found.table, before, found.focus, roles.between(found.main), found.heard)
    if found.routing.get("load"):
        drawn["load"] = load(found.routing)
    if found.curves:
        drawn["learning_curves"] = learning_curves(found.curves)
    if found.study is not None:
        blocks = study_page.forest(found.study)
        drawn |= {"differences": differences(blocks)} if blocks else {}
    return drawn


def by_cohort(table: Table, systems: list[str]) -> bytes:
    """Dot plot: WER of every system over all utterances and in each cohort, with 95 % intervals."""
    groups = table.groups
    step = 0.8 / len(systems)
    height = 1.1 + len(groups) * max(0.45, 0.125 * len(systems))
    figure, ((axes,),) = panels(1, 1, height)
    for g, group in enumerate(groups):
        if g % 2 == 0:
            axes.axhspan(g - 0.5, g + 0.5, color="#f3f4f6", zorder=0)
        for i, system in enumerate(systems):
            row = table.row(system, *group)
            if row is not None and not math.isnan(row["wer"]):
                _interval(axes, g - 0.4 + (i + 0.5) * step, row, system)
    for system in systems:
        colour, marker = roles.look(system)
        axes.plot([], [], marker, color=colour, ms=6, label=system)
    axes.set_yticks(range(len(groups)), [f"{name}\n({table.sizes[kind, name]})" for kind, name in groups])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    _wer_axis(axes)
    axes.set_xlabel("WER in percent, 95 % interval; in brackets: utterances")
    axes.grid(axis="x", color="#d9dce0", lw=0.6)
    _legend_above(figure, axes, len(systems))
    return png(figure)


def by_speaker(table: Table, before: str, after: str, between: str | None = None, heard=frozenset()) -> bytes:
    """Each speaker's WER before and after as two joined points, cohort by cohort.

    `between` is a third system, drawn as a tick; speakers not among `heard` (in training) get a star.
    """
    speakers = [s for s in table.names("speaker") if table.row(before, "speaker", s) and table.row(after, "speaker", s)]
    new = {s for s in speakers if heard and s not in heard}
    figure, ((axes,),) = panels(1, 1, 1.3 + ROW * len(speakers))
    for y, speaker in enumerate(speakers):
        _change(axes, y, {s: table.row(s, "speaker", speaker) for s in (before, after, between) if s}, before, after)
    _cohort_names(axes, [table.cohort_of.get(s) for s in speakers])
    axes.plot([], [], "o", mfc="white", mec=roles.look(before)[0], mew=1.5, label=before)
    if between:
        axes.plot([], [], "|", color=roles.look(between)[0], ms=10, mew=2, label=between)
    axes.plot([], [], "o", color=roles.look(after)[0], label=after)
    axes.plot([], [], color=BETTER, lw=2, alpha=0.55, label="better")
    axes.plot([], [], color=WORSE, lw=2, alpha=0.55, label="worse")
    labels = [f"{s}{' *' if s in new else ''} ({table.sizes['speaker', s]})" for s in speakers]
    axes.set_yticks(range(len(speakers)), labels)
    axes.set_ylim(len(speakers) - 0.4, -0.6)
    _wer_axis(axes)
    axes.set_xlabel(f"WER in percent; in brackets: utterances{'; * speaker not heard in training' if new else ''}")
    axes.grid(axis="x", color="#d9dce0", lw=0.6)
    if many := len(speakers) > FEW:
        _guide(axes, len(speakers))
    _legend_above(figure, axes, 5, lift=ROW if many else 0.0)
    return png(figure)


def _interval(axes, y: float, row: dict, system: str) -> None:
    """One system's rate as a marker on the line of its interval."""
    colour, marker = roles.look(system)
    if not math.isnan(row["wer_low"]):
        bounds = [min(100 * row["wer_low"], CLIP), min(100 * row["wer_high"], CLIP)]
        axes.plot(bounds, [y, y], color=colour, lw=1.4, zorder=2)
    if 100 * row["wer"] > CLIP:
        _beyond(axes, y, 100 * row["wer"], colour)
    else:
        axes.plot(100 * row["wer"], y, marker, color=colour, ms=6.5, mec="white", mew=0.6, zorder=3)


def _change(axes, y: float, rows: dict[str, dict | None], before: str, after: str) -> None:
    """One speaker: a ring before, a dot after, a line between them, and a tick for any other system."""
    wer = {system: 100 * row["wer"] for system, row in rows.items() if row}
    start, end = wer[before], wer[after]
    colour = BETTER if end < start else WORSE if end > start else NEUTRAL
    axes.plot([min(start, CLIP), min(end, CLIP)], [y, y], color=colour, lw=2, alpha=0.55, zorder=2)
    looks = {
        before: {"marker": "o", "mfc": "white", "ms": 6, "mew": 1.5, "zorder": 3},
        after: {"marker": "o", "ms": 6, "zorder": 4},
    }
    for system, value in wer.items():
        if value <= CLIP:
            look = looks.get(system, {"marker": "|", "ms": 12, "mew": 2, "zorder": 5})
            axes.plot(value, y, color=roles.look(system)[0], **look)
    if beyond := [(value, system) for system, value in wer.items() if value > CLIP]:
        _beyond(axes, y, max(beyond)[0], roles.look(max(beyond)[1])[0])


def _cohort_names(axes, cohorts: list[str | None]) -> None:
    """The name of every cohort on the right, at the first of its rows, and a line above it."""
    for y, cohort in enumerate(cohorts):
        if y and cohort == cohorts[y - 1]:
            continue
        if y:
            axes.axhline(y - 0.5, color="#c4c8cd", lw=0.8)
        text = textwrap.fill(cohort or "", NAME, break_long_words=False)
        if text.count("\n") < _run(cohorts[y:]):  # else the next name would be written over
            cohort = text
        place = {"y": y - 0.35, "va": "top"} if "\n" in (cohort or "") else {"y": y, "va": "center"}
        axes.text(1.03, s=cohort or "", transform=axes.get_yaxis_transform(), fontsize=9, color="#444", **place)


def _run(values: list) -> int:
    """How many times the first value stands in a row."""
    return next((i for i, value in enumerate(values) if value != values[0]), len(values))


def _guide(axes, rows: int) -> None:
    """For many rows: every other one shaded, so that the eye finds its name, and the axis above them too."""
    for y in range(0, rows, 2):
        axes.axhspan(y - 0.5, y + 0.5, color="#f3f4f6", zorder=0)
    axes.tick_params(axis="x", top=True, labeltop=True)


def differences(blocks: list[tuple[str, list[dict]]]) -> bytes:
    """Forest plot: one panel per (title, rows), a row being {label, difference, low, high, shown}, fractions of WER.

    `shown` says whether the difference counts as one; those that do not are hollow and grey.
    """
    count = sum(len(rows) for _, rows in blocks)
    heights = [len(rows) + 1 for _, rows in blocks]
    figure, grid = panels(len(blocks), 1, 0.5 + 0.24 * count + 0.75 * len(blocks), height_ratios=heights)
    for axes, (title, rows) in zip(grid.flat, blocks, strict=True):
        axes.axvline(0, color="#22262b", lw=1)
        for y, row in enumerate(rows):
            value, low, high = (100 * row[key] for key in ("difference", "low", "high"))
            colour = NEUTRAL if not row["shown"] else BETTER if value < 0 else WORSE
            if not math.isnan(low):
                axes.plot([low, high], [y, y], color=colour, lw=1.8, zorder=2)
            axes.plot(value, y, "o", color=colour, mfc=colour if row["shown"] else "white", ms=6, mew=1.5, zorder=3)
        axes.set_yticks(range(len(rows)), [row["label"] for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_title(title, fontsize=10, loc="left")
        axes.grid(axis="x", color="#d9dce0", lw=0.6)
    grid.flat[-1].set_xlabel("points of WER; negative is better")
    return png(figure)


def load(routing: dict) -> bytes:
    """Heat map expert x cohort of the routed share, and beside it each expert's `expert_load` against its prior."""
    load_EC = np.atleast_2d(np.asarray(routing["load"], np.float64))
    cohorts = list(routing["cohorts"])
    experts, unit = load_EC.shape[0], load_unit(load_EC)
    total_E = np.asarray(routing["expert_load"], np.float64)
    figure, ((left, right),) = panels(1, 2, 1.7 + 0.36 * experts, width_ratios=(3, 1.3), sharey=True)
    left.imshow(100 * load_EC, cmap="Blues", vmin=0, vmax=max(100 * load_EC.max(), 1e-9), aspect="auto")
    for e, c in np.ndindex(load_EC.shape):
        dark = load_EC[e, c] > 0.6 * load_EC.max()
        left.text(c, e, f"{100 * load_EC[e, c]:.0f}", ha="center", va="center", color="white" if dark else "#222")
    left.set_xticks(range(len(cohorts)), cohorts, rotation=35, ha="right", rotation_mode="anchor")
    left.set_yticks(range(experts), [f"expert {e}" for e in range(experts)])
    left.set_title(unit, fontsize=10, loc="left")
    left.tick_params(length=0)
    right.barh(range(experts), 100 * total_E, color="#6fa8d6", height=0.6, label="routing weight")
    if routing.get("top1"):
        right.plot(100 * np.asarray(routing["top1"]), range(experts), "D", color="#c8324a", ms=5, label="top expert of")
    if routing.get("prior") is not None:
        prior_E = 100 * np.asarray(routing["prior"], np.float64)
        ends = np.arange(experts) - 0.38, np.arange(experts) + 0.38
        right.vlines(prior_E, *ends, color="#222", lw=2, label="prior")
        right.vlines(2 * prior_E, *ends, color=WORSE, label="2 x prior", ls=":")
    right.set_xlim(left=0)
    right.set_title("% of all weight" + (", of utterances" if routing.get("top1") else ""), fontsize=10, loc="left")
    right.grid(axis="x", color="#d9dce0", lw=0.6)
    right.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.12))
    return png(figure)


def load_unit(load_EC: np.ndarray) -> str:
    """What the shares of a load matrix are shares of, read off their sums."""
    if np.allclose(load_EC.sum(0)[load_EC.sum(0) > 0], 1, atol=0.02):
        return "% of each cohort's routing weight"
    return "% of all routing weight" if np.isclose(load_EC.sum(), 1, atol=0.02) else "routed share, in %"


def learning_curves(records: dict[str, list[dict]]) -> bytes:
    """Cross-entropy against steps, one small panel per trained stage; dev (`eval/`) with points.

    A logged value is that of one batch, and batches of long and of short utterances differ: thin; the line to read is
    its running mean.
    """
    columns = min(2, len(records))
    lines = math.ceil(len(records) / columns)
    figure, grid = panels(lines, columns, 0.5 + 2.0 * lines)
    for axes, (stage, points) in zip(grid.flat, records.items(), strict=False):
        for key in ("ce", "loss"):
            if any(_number(p.get(key)) for p in points):
                steps, values = _series(points, key)
                width = int(np.clip(round(len(values) / 8), 1, 6))
                axes.plot(steps, values, color="#1f5fa8", lw=0.7, alpha=0.35)
                label = f"training, mean of {2 * width + 1} batches"
                axes.plot(steps, running_mean(values, width), color="#1f5fa8", lw=1.6, label=label)
                if any(_number(p.get(f"eval/{key}")) for p in points):
                    axes.plot(*_series(points, f"eval/{key}"), "o-", color="#c8324a", ms=3, lw=1, label="dev")
                axes.set_ylabel("nats per token" if key == "ce" else "nats per utterance", fontsize=9)
                break
        axes.set_title(f"{stage}: cross-entropy", fontsize=10, loc="left")
        axes.set_ylim(bottom=0)
        axes.grid(color="#e3e5e8", lw=0.6)
        axes.legend(frameon=False, fontsize=8)
        axes.set_xlabel("step", fontsize=9)
    for axes in list(grid.flat)[len(records) :]:
        axes.set_axis_off()
    return png(figure)


def running_mean(values: list[float], width: int) -> list[float]:
    """The mean of each value and its `width` neighbours on either side, as many of them as there are."""
    array = np.asarray(values, np.float64)
    return [float(array[max(0, i - width) : i + width + 1].mean()) for i in range(len(array))]


def _beyond(axes, y: float, value: float, colour: str) -> None:
    """A value outside the axis: an arrow at its end, and the number."""
    axes.plot(CLIP, y, ">", color=colour, ms=6, mec="white", mew=0.5, zorder=6, clip_on=False)
    axes.text(CLIP - 2, y, f"{value:.0f}", ha="right", va="center", fontsize=7, color=colour, zorder=6, bbox=PLATE)


def _wer_axis(axes) -> None:
    """From 0 to what is drawn, at most `CLIP`; the ticks end at 100."""
    axes.set_xlim(0, min(axes.get_xlim()[1], CLIP))
    if axes.get_xlim()[1] == CLIP:
        axes.set_xticks(range(0, CLIP, 20))


def _series(points: list[dict], key: str) -> tuple[list, list]:
    kept = [p for p in points if _number(p.get(key))]
    return [p["step"] for p in kept], [p[key] for p in kept]


def _number(value) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _legend_above(figure, axes, entries: int, lift: float = 0.0) -> None:
    """`lift`: inches that it stays above the axes."""
    from matplotlib.transforms import ScaledTranslation

    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        bbox_transform=axes.transAxes + ScaledTranslation(0, lift, figure.dpi_scale_trans),
        ncols=min(entries, 4),
        frameon=False,
        fontsize=9,
        handletextpad=0.3,
        columnspacing=1.2,
        borderaxespad=0.3,
    )


def panels(lines: int, columns: int, height: float, **grid):
    """A figure without a display and its axes [lines, columns]; matplotlib is imported when it is needed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    found = figure.subplots(lines, columns, squeeze=False, **grid)
    for axes in found.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("#9aa0a8")
        axes.tick_params(color="#9aa0a8")
    return figure, found


def png(figure) -> bytes:
    """In 128 colours: flat drawings lose nothing, and a page with 190 speakers stays below 2 MB."""
    from PIL import Image  # as matplotlib elsewhere here: not for those who only read SECTIONS

    whole, out = io.BytesIO(), io.BytesIO()
    figure.savefig(whole, format="png", dpi=160, facecolor="white", bbox_inches="tight")
    flat = Image.open(whole).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    flat.save(out, "PNG", optimize=True)
    return out.getvalue()
