"""The house rules that a machine can hold: who may import whom, how long a file may be, what an import may cost."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import moejax

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "moejax").rglob("*.py"))
CONFIGS = sorted((ROOT / "configs").glob("*.py"))

# What each room may import of moejax, besides itself and `errors`: floors from the ground up, no arrow up, no circle.
MAY: dict[str, tuple[str, ...]] = {
    "errors": (),
    "types": (),
    "runtime": (),
    "audio": (),
    "text": ("audio", "runtime", "speech"),
    "score": (),
    "mt": ("runtime",),
    "ops": ("types", "audio"),
    "speech": ("audio", "runtime"),
    "nn": ("types", "ops"),
    "train": ("types", "runtime"),
    "decode": ("types", "text", "audio", "ops", "nn", "runtime"),
    "convert": ("types", "text", "audio", "runtime", "ops", "nn"),
    "data": ("types", "runtime", "text", "audio", "speech"),
    "tasks": ("types", "text", "audio", "ops", "nn", "decode", "convert", "runtime"),
}
MAY["work"] = ("types", "runtime", "text", "audio", "ops", "nn", "train", "convert", "data")
MAY["cohorts"] = (*MAY["work"], "tasks", "work", "decode")
MAY["training"] = (*MAY["cohorts"], "cohorts", "score", "speech")
MAY["systems"] = (*MAY["training"], "training", "mt")
MAY["diarize"] = (*MAY["training"], "training")
MAY["report"] = ("runtime", "text", "score", "train", "work", "systems")
MAY["job"] = (*MAY["systems"], "systems", "report", "diarize")
MAY["export"] = (*MAY["job"], "job")
MAY["enrolment"] = ("runtime", "text", "audio", "data", "decode", "tasks", "systems", "nn")
MAY["recognizer"] = (*MAY["job"], "job", "enrolment")
MAY["loading"] = (*MAY["recognizer"], "recognizer")
MAY["personal"] = (*MAY["loading"], "loading")
MAY["assess"] = (*MAY["personal"], "personal")
MAY["align"] = (*MAY["loading"], "loading")
MAY["pronounce"] = (*MAY["align"], "align")
MAY["bench"] = (*MAY["loading"], "loading")
MAY["serve"] = (*MAY["loading"], "loading")
MAY["ui"] = (*MAY["serve"], "serve", "pronounce")
MAY["commands"] = (
    *MAY["bench"],
    "align",
    "assess",
    "personal",
    "pronounce",
    "bench",
    "enrolment",
    "export",
    "serve",
    "ui",
    "__init__",
)
MAY["__init__"] = ("loading", "recognizer", "job", "text")
MAY["__main__"] = ("commands",)
# Libraries that move have one home each; None stands for nowhere.
HOMES = {
    "flax": ("nn",),
    "orbax": ("train.checkpoint",),
    "grain": ("data.pipeline",),
    "array_record": ("audio.records",),
    "torch": ("bench.peers",),  # each peer runs in a process of its own
    "peft": ("bench.peers",),
    "whisper": ("bench.peers",),
    "faster_whisper": ("bench.peers",),
    "ml_collections": ("work", "job"),
    "tensorflow": (),
    "gradio": ("ui.layout",),  # the extra `ui`
    "fastapi": ("serve.app", "serve.uploads", "ui.layout"),  # the extra `serve`; its service knows nothing of routes
    "starlette": ("serve.app", "serve.uploads"),
    "uvicorn": ("serve.server",),
}


def imports(tree):
    """(line, dotted module) of every import, wherever it stands; `from a import b` counts as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            if isinstance(node.args[0], ast.Constant):
                yield node.lineno, node.args[0].value


def inside(module, places):
    return any(module == place or module.startswith(f"{place}.") for place in places)


def broken_rules(module, tree):
    """Lines 'N: what' of one file; `module` is its dotted name below moejax."""
    room, found = module.split(".")[0], []
    for line, name in imports(tree):
        top, _, rest = name.partition(".")
        if top == "moejax":
            other = rest.split(".")[0] if rest and rest.split(".")[0] in MAY else "__init__"
            if other not in (room, "errors", *MAY[room]):
                found.append(f"{line}: {room} may not import {name}")
        elif top in HOMES and not inside(module, HOMES[top]):
            found.append(f"{line}: {top} is imported outside {', '.join(HOMES[top]) or 'the tests'}")
    return found


def module_of(path):
    return ".".join(path.relative_to(ROOT / "moejax").with_suffix("").parts)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_go_one_way_and_libraries_have_one_home(path):
    module = module_of(path)
    assert module.split(".")[0] in MAY, f"no rule for the room of {module}: write one here and in docs/architecture.md"
    assert broken_rules(module, ast.parse(path.read_text())) == []


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("ops.x", "from moejax.nn import whisper"),
        ("ops.x", "def f():\n    import moejax.job.graph"),
        ("nn.x", "from moejax.tasks import asr"),
        ("train.x", "from moejax import nn"),
        ("data.x", "from moejax.nn.functional import paths"),
        ("score.x", "from moejax.ops import losses"),
        ("training.x", "from flax import nnx"),
        ("training.x", "import moejax.recognizer"),
        ("training.x", "import grain.python as pg"),
        ("tasks.x", "import orbax.checkpoint"),
        ("tasks.x", "from ml_collections import ConfigDict"),
        ("convert.x", "import torch"),
        ("convert.x", "def f():\n    importlib.import_module('torch.nn')"),
        ("mt.x", "import moejax"),
        ("serve.service", "import fastapi"),
        ("personal.x", "from moejax.serve import service"),
    ],
)
def test_the_rules_can_be_broken(module, code):
    assert len(broken_rules(module, ast.parse(code))) == 1


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_import_ml_collections_only(path):
    assert {name.split(".")[0] for _, name in imports(ast.parse(path.read_text()))} == {"ml_collections"}


@pytest.mark.parametrize("path", [*FILES, *CONFIGS], ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short_and_well_named(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert path.stem not in ("utils", "util", "helpers", "common", "misc")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno + 1 <= 80, f"{node.name} is too long"


def test_import_is_quick_and_starts_nothing():
    code = (
        "import sys, time; start = time.perf_counter(); import moejax; seconds = time.perf_counter() - start;"
        "heavy = sorted({'jax', 'flax', 'torch', 'numpy', 'orbax', 'grain'} & set(sys.modules)); print(seconds, heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, heavy = done.stdout.strip().split(" ", 1)
    assert heavy == "[]" and float(seconds) < 0.5


def test_every_public_name_resolves_and_an_unknown_one_lists_them():
    assert set(moejax.__all__) >= {"load", "run", "evaluate", "Recognizer", "Transcript"}
    assert all(getattr(moejax, name) is not None for name in moejax.__all__)
    assert set(dir(moejax)) == set(moejax.__all__)
    with pytest.raises(AttributeError, match="'transcribe'.*load"):
        moejax.transcribe  # noqa: B018 - the access is the test
