"""COMET (Rei et al. 2020) by the command of the package unbabel-comet.

A process of its own, and its own environment: unbabel-comet 2.2 wants numpy below 2 and transformers below 5, which
moejax cannot be installed beside (`python -m venv comet; comet/bin/pip install unbabel-comet`).
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from moejax.errors import BadValue

COMMAND = "comet-score"
EVERY = 5.0  # seconds between two signs of life


def scores(
    systems: Mapping[str, Sequence[str]],
    references: Sequence[str],
    spoken: Sequence[str],
    *,
    model: str,
    command: str = COMMAND,
    alive: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """{system: mean COMET of its sentences}, on processors. `spoken`: what was said, in the source language.

    `model`: a checkpoint (.ckpt), or a name such as Unbabel/wmt22-comet-da, which the command downloads where it is
    not there yet. `alive` is called while the command runs. Errors: BadValue where there is no such command, or it
    fails, with what it said last.
    """
    program = shutil.which(Path(command).expanduser())
    if program is None:
        raise BadValue(
            f"no command {command!r}: install unbabel-comet in an environment of its own and name its {COMMAND}"
        )
    if Path(model).expanduser().is_file():  # the command runs elsewhere
        model = str(Path(model).expanduser().resolve())
    with tempfile.TemporaryDirectory(prefix="moejax-comet-") as place:
        folder, named = Path(place), {f"{number}.txt": name for number, name in enumerate(systems)}
        texts = {"spoken": spoken, "references": references}
        for file, lines in [*texts.items(), *((file, systems[name]) for file, name in named.items())]:
            (folder / file).write_text("".join(" ".join(line.split()) + "\n" for line in lines), encoding="utf-8")
        arguments = ["-s", "spoken", "-r", "references", "-t", *named, "--model", model, "--gpus", "0", "--quiet"]
        _run([program, *arguments, "--only_system", "--to_json", "scores.json"], folder, alive)
        found = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    sentences = {named[Path(file).name]: [line["COMET"] for line in lines] for file, lines in found.items()}
    return {name: sum(sentences[name]) / len(sentences[name]) for name in systems}


def _run(arguments: list[str], folder: Path, alive: Callable[[], None]) -> None:
    with open(folder / "said", "w+", encoding="utf-8") as said:
        with subprocess.Popen(arguments, cwd=folder, stdout=said, stderr=subprocess.STDOUT) as process:
            while True:
                try:
                    code = process.wait(EVERY)
                    break
                except subprocess.TimeoutExpired:
                    alive()
        if code:
            said.seek(0)
            last = [line for line in said.read().splitlines() if line.strip()][-1:] or ["nothing"]
            raise BadValue(f"{Path(arguments[0]).name} ended with code {code} and said: {last[0].strip()[:300]}")
