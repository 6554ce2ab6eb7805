"""Synthesised speech on disk: `synthesize` turns `SpeechItem`s into WAV files, `readings` reads texts in many voices.

A file's name is a digest of everything that made it, so a second call synthesises nothing and an interrupted one is
completed.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from moejax.errors import BadValue, Failed, NotInstalled, NotWritten
from moejax.speech import espeak, speakers
from moejax.speech.render import SpeechItem, digest, environment, perform

__all__ = ["SpeechItem", "cache_folder", "digest", "readings", "synthesize"]

_REPORT_EVERY = 64


def cache_folder() -> Path:
    """Where moejax keeps what it can make again: $XDG_CACHE_HOME/moejax, else ~/.cache/moejax."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "moejax"


def _serve(share: Sequence[tuple[SpeechItem, str]], process: subprocess.Popen, answers: queue.Queue) -> None:
    """Thread body: hand one worker its share, pass its answers on, then its exit status."""
    assert process.stdin is not None and process.stdout is not None  # pipes, as `_dealt` asks for
    try:
        json.dump([(dataclasses.asdict(item), path) for item, path in share], process.stdin)
        process.stdin.close()
        for line in process.stdout:
            answers.put(json.loads(line))
    except (BrokenPipeError, json.JSONDecodeError):
        pass  # the worker is gone; its exit status, reported next, is the news
    answers.put(process.wait())


def _dealt(shares: Sequence[Sequence[tuple[SpeechItem, str]]]) -> Iterator[str]:
    """`perform` in one process per share; yields paths as they are finished, raises the first worker's error."""
    command = [sys.executable, "-m", "moejax.speech.render"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment()}
    answers: queue.Queue = queue.Queue()
    processes = [subprocess.Popen(command, **pipes) for _ in shares]
    threads = [
        threading.Thread(target=_serve, args=(share, process, answers), daemon=True)
        for share, process in zip(shares, processes, strict=True)
    ]
    try:
        for thread in threads:
            thread.start()
        running = len(processes)
        while running:
            answer = answers.get()
            if isinstance(answer, str):
                yield answer
            elif isinstance(answer, dict):
                kind = {"ValueError": BadValue, "OSError": NotWritten}.get(answer["kind"], Failed)
                raise kind(answer["error"])
            elif answer != 0:
                raise Failed(f"a speech synthesis worker ended with status {answer}; its message stands above")
            else:
                running -= 1
    finally:
        for process in processes:
            process.terminate()
        for thread in threads:
            thread.join()
        for process in processes:
            assert process.stdout is not None  # a pipe
            process.stdout.close()


def synthesize(
    items: Sequence[SpeechItem],
    out_dir: str | Path,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """The WAV file (16 kHz, mono, 16 bit) of each item, in order; only those not yet in `out_dir` are made.

    progress is called with (files made, files to make). Raises ModuleNotFoundError when espeakng-loader is missing and
    there is something to make, ValueError for an unknown voice, variant or process.
    """
    names = [digest(item) for item in items]
    paths = [Path(out_dir) / name[:2] / f"{name}.wav" for name in names]
    jobs = {str(path): item for path, item in zip(paths, items, strict=True)}
    jobs = [(item, path) for path, item in jobs.items() if not os.path.exists(path)]
    if not jobs:
        return paths
    if importlib.util.find_spec("espeakng_loader") is None:
        raise NotInstalled(espeak.MISSING)
    jobs.sort(key=lambda job: (job[0].spoken_voice, job[1]))
    workers = max(1, min(workers, len(jobs) // 16))
    shares = [jobs[len(jobs) * k // workers : len(jobs) * (k + 1) // workers] for k in range(workers)]
    for made, _ in enumerate(perform(jobs) if workers == 1 else _dealt(shares), start=1):
        if progress and (made % _REPORT_EVERY == 0 or made == len(jobs)):
            progress(made, len(jobs))
    return paths


def readings(
    texts: Sequence[str],
    n: int,
    seed: int,
    cache_dir: str | Path | None = None,
    cohorts: Sequence[str] = ("typical",),
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[str, Path]]:
    """`n` synthetic readings of the texts as (text, WAV path): training material for a base model, never test material.

    Every reading has its own voice: English accent, variant, rate, pitch, vocal tract, microphone, noise, echo. Texts
    take turns, so each is read n // len(texts) times or once more. Single letters are read as letter names ("T":
    tee), digits and number words as words. cohorts: styles of `speakers.COHORTS` drawn in equal shares. Errors as
    `synthesize`; ValueError for no texts.
    """
    if not texts:
        raise BadValue("readings: no texts to read; give at least one")
    items = [speakers.reader(texts[k % len(texts)], cohorts[k % len(cohorts)], f"{seed} {k}") for k in range(n)]
    folder = Path(cache_dir) if cache_dir else cache_folder() / "speech"
    paths = synthesize(items, folder, workers=workers, progress=progress)
    return list(zip([item.text for item in items], paths, strict=True))
