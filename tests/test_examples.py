"""The notebooks of examples/ run from top to bottom, and what their texts say about the figures is so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RUN = """
import json, sys

names = {"__name__": "__main__"}
for number, cell in enumerate(json.loads(sys.stdin.read())["cells"]):
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
frames = {name: names[name].to_dict() for name in ("wer", "shares", "spread")}
print(json.dumps({**frames, "heard": list(names["heard"]["heard"]), "said": list(names["heard"]["text"])}))
"""


def executed(notebook: Path, folder: Path) -> dict:
    """The last line that the code cells and `RUN` print, run in a process of its own that writes to `folder` only."""
    cache = ROOT / ".cache" / "jax-tests"
    places = {"TMPDIR": folder, "XDG_CACHE_HOME": folder / "cache", "JAX_COMPILATION_CACHE_DIR": cache}
    environment = {**os.environ, **{name: str(place) for name, place in places.items()}, "PYTHONPATH": str(ROOT)}
    environment.pop("XLA_FLAGS", None)  # the reader has no 8 devices
    command = [sys.executable, "-c", RUN]
    text = notebook.read_text(encoding="utf-8")
    done = subprocess.run(command, cwd=folder, env=environment, input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.job
def test_first_steps(tmp_path):
    pytest.importorskip("espeakng_loader", reason="the synthesiser is not installed: pip install '.[quickstart]'")
    found = executed(ROOT / "examples" / "first_steps.ipynb", tmp_path)
    wer, shares, spread = found["wer"], found["shares"], found["spread"]
    # The mixture makes fewer errors on slow, monotone speech, which the base has never heard, and in all
    assert wer["slow_monotone"]["moe"] < wer["slow_monotone"]["base"] and wer["all"]["moe"] < wer["all"]["base"]
    assert wer["typical"]["base"] < wer["slow_monotone"]["base"]
    # That speech leans on another expert than typical speech does
    leading = {
        cohort: max(shares, key=lambda expert: shares[expert][cohort]) for cohort in ("slow_monotone", "typical")
    }
    assert leading["slow_monotone"] != leading["typical"]
    # An enrolled voice has one route, whatever is said; before, it changed
    assert spread["enrolled"] < 1e-4 < spread["as it comes"]
    # The recogniser writes sentences
    assert sum(a == b for a, b in zip(found["heard"], found["said"], strict=True)) > len(found["said"]) / 2


@pytest.mark.parametrize("notebook", sorted((ROOT / "examples").glob("*.ipynb")), ids=lambda path: path.stem)
def test_outputs_are_those_of_a_whole_run(notebook):
    cells = [c for c in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert kinds <= {"execute_result", "stream"}
