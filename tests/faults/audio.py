"""Broken recordings through the gate, through `moejax describe` and through `moejax transcribe`.

What must hold: nothing crashes or hangs; a recording is used, with finite features, or refused under one of
`flaws.REASONS` in one line; whole recordings are used; describe and transcribe account for every one of them.
"""

import collections
import contextlib
import csv
import functools
import io
import os
import shutil
import time
import warnings
from pathlib import Path

import broken_audio
import isolation
import numpy as np
from table import Row

SECONDS = 10.0  # of the processor, for one recording through the gate
WAIT = 60.0  # for an answer, on a machine that may be busy with other things
BATCH = 250  # recordings of one describe and one transcribe
COMMANDS = {"described": "describe", "transcribed": "transcribe"}


def run(tries: int, folder: Path, seed: int) -> list[Row]:
    """Rows for the gate, and for describe and transcribe on the same recordings."""
    cases = broken_audio.cases(tries, seed)
    bad, said = [], collections.Counter()
    place = folder / "gate"
    place.mkdir(parents=True)
    for case, outcome in isolation.each(f"{__name__}:gated", cases, seconds=WAIT, shared=(place,)):
        said[outcome.get("said", outcome.get("fault"))] += 1
        if "fault" in outcome:
            bad.append(f"{case.kind} {case.number}: {outcome['fault']}, {outcome['detail']}")
    rows = [_row("broken audio: the gate", tries, bad, said)]
    for function, command in COMMANDS.items():
        bad, said = [], collections.Counter()
        batches = [cases[at : at + BATCH] for at in range(0, len(cases), BATCH)]
        limit, shared = 120.0 + BATCH, (folder / command,)
        for batch, outcome in isolation.each(f"{__name__}:{function}", batches, seconds=limit, shared=shared):
            said.update(outcome.get("said", {}))
            bad += outcome.get("bad", [])
            if "fault" in outcome:
                bad += [f"{case.kind} {case.number}: {outcome['fault']}, {outcome['detail']}" for case in batch]
        rows.append(_row(f"broken audio: {command}", tries, bad, said))
    return rows


def _row(fault, tries, bad, said) -> Row:
    counts = ", ".join(f"{name} {count}" for name, count in said.most_common())
    failed = f"; FAILED: {' | '.join(bad[:10])}" if bad else ""
    return Row(fault, tries, tries - len(bad), note=counts + failed)


def gated(case, folder) -> dict:
    """{"said": "used" or the reason} of one recording. Errors: whatever must not be."""
    from moejax.audio import flaws, read

    folder.mkdir(parents=True, exist_ok=True)
    path = broken_audio.make(case, folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            start = time.process_time()
            try:
                checked = read.load(path)
                seconds = time.process_time() - start
            except flaws.Rejected as rejected:
                said, seconds = rejected.reason, time.process_time() - start
                _must(said in flaws.REASONS, f"unknown reason {said}")
                _must("\n" not in str(rejected) and len(str(rejected)) < 500, f"not one line: {rejected}")
                _must(case.kind != "whole", f"a whole recording is refused: {rejected}")
            else:
                said = "used"
                _check_used(checked)
        _must(seconds < SECONDS, f"took {seconds:.1f} s")
        return {"said": said}
    finally:
        _remove(path)


def _check_used(checked):
    samples, rate = checked.samples, 16000
    _must(samples.dtype == np.float32 and samples.ndim == 1, f"samples are {samples.dtype} {samples.shape}")
    _must(bool(np.isfinite(samples).all()) and np.abs(samples).max() <= 1.0, "samples outside [-1, 1]")
    _must(abs(len(samples) / rate - checked.seconds) < 0.01, f"{len(samples)} samples for {checked.seconds} s")
    _must(0 <= checked.silence_share <= 1, f"silence share {checked.silence_share}")
    room = next(n for n in (rate, 4 * rate, 31 * rate) if len(samples) <= n)
    _must(bool(np.isfinite(_features(np.pad(samples, (0, room - len(samples))))).all()), "features that are not finite")


@functools.cache
def _log_mel():
    import jax

    from moejax.ops import audio

    return jax.jit(audio.log_mel)


def _features(samples) -> np.ndarray:
    return np.asarray(_log_mel()(samples[None]))


def _must(holds: bool, otherwise: str):
    if not holds:
        raise AssertionError(otherwise)


def _remove(path):
    if "\0" in path.name:
        return
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def described(batch, folder) -> dict:
    """{"said": {used or reason: count}, "bad": [...]} of one corpus of broken recordings."""
    import moejax
    from moejax.audio import flaws
    from moejax.data.manifest import Manifest

    # A table with a NUL is refused as a whole, which is the manifests suite's to see
    written = zip(batch, _corpus(batch, folder), strict=True)
    batch, paths = zip(*[(case, path) for case, path in written if "\0" not in path.name], strict=True)
    with open(folder / "metadata.csv", "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("file", "text", "speaker"))
        rows.writerows((path.name, "some words", f"s{number % 7}") for number, path in enumerate(paths))
    data = {"source": "folder", "root": str(folder), "columns": {"audio": "file"}, "max_skipped_share": 0.999}
    try:
        moejax.run({"name": "broken", "data": data}, folder / "W", stages="describe", quiet=True)
        manifest = Manifest.load(folder / "W" / "describe" / "manifest.parquet")
        used = {Path(name).stem for name in manifest.column("id")}
        with open(folder / "W" / "describe" / "skipped.csv", newline="") as file:
            skipped = {Path(row["id"]).stem: row["reason"] for row in csv.DictReader(file)}
    finally:
        shutil.rmtree(folder)
    bad, said = [], collections.Counter(used=len(used))
    for case, path in zip(batch, paths, strict=True):
        reason = skipped.get(path.stem)
        said.update([reason] if reason else [])
        if (path.stem in used) == (reason is not None) or (reason and reason not in flaws.REASONS):
            bad.append(f"{case.kind} {case.number}: used {path.stem in used}, skipped {reason}")
    return {"said": dict(said), "bad": bad}


def transcribed(batch, folder) -> dict:
    """As `described`, of one command line. Ten hours are heard once only: that is work, and not quickly done."""
    from moejax import __main__ as cli

    hours = [case for case in batch if case.kind == "hours"][1:]
    batch = [case for case in batch if case not in hours]
    paths = _corpus(batch, folder)
    place_of = {path: os.path.realpath(path) if os.path.exists(path) else str(path) for path in paths}
    err, out = io.StringIO(), folder / "out"
    once = ("--temperature", "0", "--temperature-increment-on-fallback", "None", "--guards", "none", "--language", "en")
    argv = ["transcribe", *map(str, paths), "--model", _model(folder.parent), *once, "-o", str(out), "-f", "txt"]
    try:
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            try:
                cli.main(argv)
            except SystemExit as stop:
                _must(stop.code in (0, 1), f"exit code {stop.code}: {err.getvalue()[-300:]}")
        heard = {path.name for path in out.iterdir()}
    finally:
        shutil.rmtree(folder)
    said_lines = [line.removeprefix("moejax transcribe: ") for line in err.getvalue().splitlines()]
    refused = [line for line in said_lines if not line.startswith("warning: ")]
    bad, said, places = [], collections.Counter(), set()
    for case, path in zip(batch, paths, strict=True):
        place = place_of[path]
        if place in places:  # links to one file: transcribed once
            said["the same file again"] += 1
            continue
        places.add(place)
        lines = [line for line in refused if line.startswith(f"{path}: ")]
        written = f"{path.stem}.txt" in heard
        said["written" if written else lines[0].removeprefix(f"{path}: ").split(":")[0]] += 1 if written or lines else 0
        if written == bool(lines) or len(lines) > 1:
            bad.append(f"{case.kind} {case.number}: written {written}, lines {lines}")
    if len(refused) + len(heard) != len(places):
        bad.append(f"{len(paths)} recordings, {len(heard)} written, {len(refused)} refused: {refused[-1:]}")
    said["heard once"] += len(hours)
    return {"said": dict(said), "bad": bad}


def _corpus(batch, folder) -> list[Path]:
    """The recordings of a batch, and one that is whole, so that something is left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return [broken_audio.make(case, folder) for case in batch]


@functools.cache
def _model(folder) -> str:
    import tiny_model

    return str(tiny_model.write(folder / "model", timed=False))
