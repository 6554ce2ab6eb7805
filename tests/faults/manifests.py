"""Broken tables through `moejax describe`, and damaged manifests through the loader of every later stage.

What must hold: a table that says nothing sensible ends in exit code 1 and one line that names the table and what is
wrong, before any audio is read; every row of a sound one is used, or skipped under a reason that is counted.
"""

import collections
import contextlib
import csv
import io
import json
import random
import shutil
import time
from pathlib import Path

import isolation
import numpy as np
import soundfile
from table import Row

COLUMNS = ("file", "text", "speaker", "id")
ROWS = 12
MILLION = 1_000_000
USED = "used"  # in place of the word that the refusal must have


def run(tries: int, folder: Path, seed: int) -> list[Row]:
    cases = [(list(KINDS)[number % len(KINDS)], number) for number in range(tries)]
    bad, said = [], collections.Counter()
    for case, outcome in isolation.each(f"{__name__}:read", cases, seconds=60.0, shared=(folder, seed)):
        said[outcome.get("said", outcome.get("fault"))] += 1
        if "fault" in outcome:
            bad.append(f"{case}: {outcome['fault']}, {outcome['detail']}")
    rows = [_row("broken tables: one line before any work", tries, bad, said)]
    ((_, outcome),) = isolation.each(f"{__name__}:million", [MILLION], seconds=1200.0, shared=(folder,))
    note = f"{outcome['took']:.0f} s of the processor" if "took" in outcome else f"FAILED: {outcome['detail']}"
    return [*rows, Row(f"a table of {MILLION:,} rows", 1, int("took" in outcome), note=note)]


def _row(fault, tries, bad, said) -> Row:
    note = ", ".join(f"{name} {count}" for name, count in said.most_common())
    return Row(fault, tries, tries - len(bad), note=note + (f"; FAILED: {' | '.join(bad[:10])}" if bad else ""))


def rows_of(draw) -> list[list]:
    return [[f"wav/{n % 4}.wav", f"some words {n}", f"s{n % 3}", f"u{n}"] for n in range(ROWS)]


def table(rows, columns=COLUMNS) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([columns, *rows])
    return stream.getvalue().encode()


def lines(rows, columns=COLUMNS) -> bytes:
    return "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows).encode()


def _cell(column, values, word):
    """A kind that puts one of `values` into a cell of a CSV."""

    def make(draw):
        rows = rows_of(draw)
        rows[draw.randrange(ROWS)][COLUMNS.index(column)] = draw.choice(values)
        return "metadata.csv", table(rows), word

    return make


def _json_cell(column, values, word):
    """The same in JSON lines."""

    def make(draw):
        rows = rows_of(draw)
        rows[draw.randrange(ROWS)][COLUMNS.index(column)] = draw.choice(values)
        return "metadata.jsonl", lines(rows), word

    return make


def _bytes(change, word):
    """A kind that changes the bytes of a table."""

    def make(draw):
        return "metadata.csv", change(draw, table(rows_of(draw))), word

    return make


def _segment(draw):
    name = draw.choice(("offset", "duration"))
    value = draw.choice((-1, "soon", float("nan"), float("inf"), 1e300, [1], "1,5"))
    rows = [
        {"audio_filepath": f"wav/{n % 4}.wav", "text": "words", "offset": 0.1, "duration": 0.3, "id": f"u{n}"}
        for n in range(ROWS)
    ]
    rows[draw.randrange(ROWS)][name] = value
    word = USED if value != value and name == "duration" else name
    if value != value:  # not a number stands for nothing in tables
        word = USED
    return "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode(), word


def _renamed(draw):
    columns = list(COLUMNS)
    gone = draw.choice((0, 1))
    columns[gone] = "other"
    return "metadata.csv", table(rows_of(draw), columns), "column"


def _ragged(draw):
    rows = rows_of(draw)
    number = draw.randrange(ROWS)
    rows[number] = draw.choice((rows[number][:2], [*rows[number], "more"]))
    return "metadata.csv", table(rows), "fields"


def _doubled(draw):
    rows = rows_of(draw)
    rows[3][3] = rows[8][3]
    return draw.choice((("metadata.csv", table(rows), "id"), ("metadata.jsonl", lines(rows), "id")))


def _flipped(draw):
    """Any byte may be another: refused in a line, or read."""
    content = bytearray(table(rows_of(draw)))
    for _ in range(draw.choice((1, 3, 30))):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return "metadata.csv", bytes(content), None


def _broken_json(draw):
    content = lines(rows_of(draw))
    return (
        "metadata.jsonl",
        draw.choice(
            (
                content[:-20],
                content + b"[1, 2]\n",
                content + b"null\n",
                b"[" + content,
                content + b'{"file": \n',
                content + b"[" * 100_000 + b"\n",
                content + b'{"id": ' + b"9" * 6000 + b"}\n",
                b'"text"\n',
            )
        ),
        "metadata.jsonl",
    )


def _nothing(draw):
    return "metadata.csv", draw.choice((b"", table([]), b"\n\n", b"\xef\xbb\xbf")), "metadata.csv"


def _parquet(draw):
    """The manifest that describe wrote, damaged: what every later stage reads."""
    return "manifest.parquet", b"", None


KINDS = {
    "sound": _bytes(lambda draw, content: content, USED),
    "byte order mark": _bytes(lambda draw, content: b"\xef\xbb\xbf" + content, USED),
    "other line ends": _bytes(lambda draw, content: content.replace(b"\n", b"\r\n"), USED),
    "no column": _renamed,
    "id twice": _doubled,
    "path twice": lambda draw: ("metadata.csv", table([row[:3] for row in rows_of(draw)], COLUMNS[:3]), "id"),
    "empty text": _cell("text", ("", " ", "\t "), USED),
    "empty path": _cell("file", ("", "  "), "file"),
    "path outside": _cell("file", ("../a.wav", "/etc/passwd", "wav/../../a.wav", ".", "wav/.."), "leads out"),
    "no such file": _cell("file", ("wav/none.wav", "wav", "x" * 5000, "wav/\u00e9\u4e2d.wav"), USED),
    "wrong encoding": _bytes(
        lambda draw, content: draw.choice(
            (
                content.replace(b"words 3", "w\u00f6rter".encode("latin-1")),
                content.decode().encode("utf-16"),
                content + b"\xff\xfe\x80\n",
                content.replace(b"some", b"\xc3\x28"),
            )
        ),
        "UTF-8",
    ),
    "NUL": _bytes(lambda draw, content: content.replace(b"words", b"wo\0rds", 1), "NUL"),
    "control characters": _cell("id", ("a\x07b", "a\x1bb", "line\nbreak"), "control"),
    "ragged": _ragged,
    "open quote": _bytes(lambda draw, content: content.replace(b"some words 5", b'"some words 5', 1), "metadata.csv"),
    "huge field": _cell("text", ("word " * 60_000,), "field"),
    "column twice": lambda draw: ("metadata.csv", table(rows_of(draw), ("file", "text", "text", "id")), "twice"),
    "json: audio of a type": _json_cell("file", (3, 2.5, True, ["a.wav"], {"bytes": ""}), "file"),
    "json: text of a type": _json_cell("text", (True, ["a"], {"a": 1}), "text"),
    "json: no audio": _json_cell("file", (None, ""), "file"),
    "json: numbers are text": _json_cell("speaker", (3, 2.5, None), USED),
    "json: half a character": _json_cell("text", ("\ud800 words",), "surrogate"),
    "json: broken": _broken_json,
    "segments": _segment,
    "nothing": _nothing,
    "bytes flipped": _flipped,
    "manifest damaged": _parquet,
}


def read(case, folder, seed) -> dict:
    """{"said": what became of it} of one table. Errors: whatever must not be."""

    kind, number = case
    draw = random.Random(f"{seed} {number} {kind}")
    name, content, word = KINDS[kind](draw)
    corpus = _corpus(folder)
    if kind == "manifest damaged":
        return _damaged(draw, folder, corpus)
    for old in corpus.glob("metadata.*"):
        old.unlink()
    (corpus / name).write_bytes(content)
    code, err = _describe(folder, corpus)
    work = folder / "W"
    try:
        _must(code in (0, 1), f"exit code {code}")
        if code == 1:
            _must(len(err) == 1, f"{len(err)} lines: {err[-3:]}")
            _must(word != USED, f"refused: {err[0][:300]}")
            _must(str(corpus / name) in err[0] or word is None, f"does not name the table: {err[0][:300]}")
            _must(word is None or word in err[0], f"does not say {word!r}: {err[0][:300]}")
            _must(len(err[0]) < 3000, f"a line of {len(err[0])} characters")
            _must(not (work / "describe").exists(), "work was begun")
            return {"said": "refused"}
        _must(word in (USED, None), f"accepted; should have been refused for {word!r}")
        summary = json.loads((work / "describe" / "summary.json").read_text())
        _must(word is None or summary["utterances"] + sum(summary["skipped"].values()) == ROWS, f"rows lost: {summary}")
        return {"said": "used"}
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _describe(folder, corpus) -> tuple[int, list[str]]:
    """(exit code, lines of stderr) of `moejax describe` on the corpus."""
    from moejax import __main__ as cli

    config = folder / "config.py"
    data = {"source": "folder", "root": str(corpus), "max_skipped_share": 0.9}
    values = {"data": data, "runtime": {"compilation_cache": ""}}
    config.write_text(f"def get_config():\n    return {values!r}\n", encoding="utf-8")
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        code = cli.guarded(["describe", "--config", str(config), "--workdir", str(folder / "W")])
    return code, [line for line in err.getvalue().splitlines() if line.startswith("moejax")] if code else []


def _corpus(folder) -> Path:
    corpus = folder / "corpus"
    if not corpus.exists():
        (corpus / "wav").mkdir(parents=True)
        for n in range(4):
            wave = 0.3 * np.sin(np.arange(8000) * (0.05 + 0.01 * n))
            soundfile.write(corpus / "wav" / f"{n}.wav", wave, 16000)
    return corpus


def _damaged(draw, folder, corpus) -> dict:
    """The parquet file with flipped bits, cut or of something else: the same rows, or one line of ours."""
    from moejax import __main__ as cli
    from moejax.data.manifest import Manifest

    whole = folder / "manifest.parquet"
    if not whole.exists():
        (corpus / "metadata.csv").write_bytes(table(rows_of(draw)))
        _must(_describe(folder, corpus)[0] == 0, "describe failed on a sound table")
        shutil.copy(folder / "W" / "describe" / "manifest.parquet", whole)
        shutil.rmtree(folder / "W")
    content = bytearray(whole.read_bytes())
    if draw.random() < 0.3:
        content = content[: draw.randrange(len(content))]
    else:
        for _ in range(draw.choice((1, 5, 50))):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    broken = folder / "broken.parquet"
    broken.write_bytes(content)
    try:
        Manifest.load(broken)
    except Exception as error:
        _must(cli.foreseen(error), f"{type(error).__name__}: {error}")
        _must(str(broken) in str(error) and "\n" not in str(error), f"not one line that names it: {error}")
        return {"said": "refused"}
    return {"said": "used"}


def million(count, folder) -> dict:
    """Reads a table of so many rows: {"took": seconds of the processor}."""
    from moejax.data.sources import folder as source

    corpus = folder / "million"
    corpus.mkdir()
    with open(corpus / "metadata.csv", "w") as file:
        file.write("file,text,speaker\n")
        file.writelines(f"wav/{n}.wav,some words {n},s{n % 1000}\n" for n in range(count))
    start = time.process_time()
    utterances = source.load(root=str(corpus))
    took = time.process_time() - start
    shutil.rmtree(corpus)
    _must(len(utterances) == count and utterances[-1].id == f"wav/{count - 1}", "rows lost")
    return {"took": took}


def _must(holds: bool, otherwise: str):
    if not holds:
        raise AssertionError(otherwise)
