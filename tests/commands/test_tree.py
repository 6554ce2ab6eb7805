"""The tree of commands: what it costs to import, what its help says, what it does about names that there are not."""

import fnmatch
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_job
import yaml

from moejax.__main__ import guarded
from moejax.commands import transcribe_options, tree
from moejax.job import config as configs
from moejax.job.stages import STAGES
from moejax.work.stage import ABOUT, OUTSIDE, WRITES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def said(capsys):
    """(exit code, stdout, stderr) of a command line."""
    return lambda *argv: (guarded([str(arg) for arg in argv]), *capsys.readouterr())


@pytest.mark.parametrize("argv", [["--help"], *([name, "--help"] for name in ("all", "transcribe", "export", "bench"))])
def test_help_imports_nothing_heavy(argv):
    code = (
        "import sys, time; start = time.process_time(); from moejax.__main__ import guarded;"
        f"guarded({argv!r}); seconds = time.process_time() - start;"
        "heavy = sorted({'jax', 'flax', 'numpy', 'ml_collections', 'absl'} & set(sys.modules)); print(seconds, heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, heavy = done.stdout.splitlines()[-1].split(" ", 1)
    assert heavy == "[]" and float(seconds) < 0.3


@pytest.mark.parametrize("name", [*tree.COMMANDS, *ABOUT])
def test_the_help_of_a_command_teaches(said, monkeypatch, name):
    monkeypatch.setattr(configs, "help_text", lambda key=None: "every key\n", raising=False)
    code, out, err = said(name, "--help")
    assert (code, err) == (0, "") and out.startswith(f"usage: moejax {name} ")
    assert "--traceback" in out and re.search(rf"examples?:\n  moejax {name} ", out)
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.parametrize("name", ABOUT)
def test_the_help_of_a_stage_says_what_it_reads_and_writes_and_its_keys(said, name):
    out = said(name, "--help")[1]
    reads, writes = re.search(r"reads:\n(.*)\n\nwrites in W/\w+:\n(.*?)\n\n", out, re.DOTALL).groups()
    assert all(f"W/{needed}: " in reads for needed in STAGES[name].needs) and OUTSIDE.get(name, "") in reads
    assert all(file in writes for file in [*WRITES[name], "done.json"])
    assert f"\n  {name}." in out or not STAGES[name].sections
    for key in STAGES[name].reads:
        assert f"\n  {key}" in out


@pytest.mark.job
def test_what_stages_are_said_to_write_is_what_they_write(tmp_path_factory):
    """No file of a finished job that the help does not name, and none of those that every job has is missing."""
    work, writes = tiny_job.shared(tmp_path_factory) / "W", {n: f for n, f in WRITES.items() if not STAGES[n].apart}
    for name, files in writes.items():
        patterns = [re.sub(r"<\w+>", "*", file.rstrip("/")) for line in files for file in line.split(", ")]
        patterns += ["done.json", "started.json"]
        found = [path.name for path in (work / name).iterdir()]
        assert [file for file in found if not any(fnmatch.fnmatch(file, pattern) for pattern in patterns)] == []
    missing = [f"{name}/{line}" for name, files in writes.items() for line in files if not _there(work / name, line)]
    idle = [
        f"{name}/{line}" for name in ("hyper", "targets", "st", "ctc", "emotion", "salmonn") for line in WRITES[name]
    ]
    assert missing == ["describe/audio/", "embed/gradients.npz", *idle, "translate/tuned/", "report/seeds*.csv"]


def _there(folder, line):
    found = {path.name + "/" * path.is_dir() for path in folder.iterdir()}
    return all(fnmatch.filter(found, re.sub(r"<\w+>", "*", file)) for file in line.split(", "))


def test_help_of_a_key_is_that_of_the_config(said, monkeypatch):
    monkeypatch.setattr(configs, "help_text", lambda key=None: f"about {key}\n", raising=False)
    assert said("config", "--help", "gate.kind") == (0, "about gate.kind\n", "")
    code, out, _ = said("config", "-h")
    assert code == 0 and out.startswith("usage: moejax config ") and out.endswith("\nabout None\n")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["transcirbe"], r"unknown command 'transcirbe' \(did you mean transcribe\?\); known: align, .*, emotions$"),
        (["--versoin"], r"\(did you mean --version\?\)"),
        (["zzz"], r"unknown command 'zzz'; known: "),
        (["all", "--confg", "F.py"], r"all has no option '--confg'; did you mean --config\?"),
        (["all", "--config", "FILE", "--sedes=3"], r"all has no option '--sedes'; did you mean --seeds\?"),
        (["base", "--config", "FILE", "--seeds", "3"], r"base has no option '--seeds'; --help lists them"),
        (["plan", "--config", "FILE", "--device", "3"], r"plan has no option '--device'; did you mean --devices\?"),
        (["config", "--config", "FILE", "gate"], r"unexpected argument 'gate'; overrides are written --config\."),
        (["export", "--ouput", "D"], r"export has no option '--ouput'; did you mean --output\?"),
        (["bench", "--peer"], r"bench has no option '--peer'; did you mean --peers\?"),
        (["transcribe", "a.wav", "--langauge", "en"], r"no option '--langauge'; did you mean --language\?"),
        (["all", "--seeds"], r"all: --seeds wants a value$"),
        (["export", "--to"], r"export: --to wants a value$"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_there_is_not_is_named_with_what_is_nearest(said, argv, words):
    argv = [str(ROOT / "configs/quickstart.py") if arg == "FILE" else arg for arg in argv]
    code, out, err = said(*argv)
    assert code == 1 and not out and err.startswith(f"moejax {argv[0]}: ") and err.count("\n") == 1
    assert re.search(words, err.rstrip("\n")), err


@pytest.mark.parametrize(
    ("argv", "section", "key", "value"),
    [
        (["--config.joint.steps=17"], "joint", "steps", 17),
        (["--config.joint.steps", "17"], "joint", "steps", 17),
        (["-config.joint.steps=17"], "joint", "steps", 17),
        (["--config.joint.balance", "0.5", "--force"], "joint", "balance", 0.5),
        (["--noconfig.report.figures"], "report", "figures", False),
        (["--config.adapters.kinds=()"], "adapters", "kinds", []),
        (["--config.adapters.kinds", "('lora','cohort')"], "adapters", "kinds", ["lora", "cohort"]),
        (["--config.data.columns.text=two words", "--workdir", "W"], "data", "columns", {"text": "two words"}),
        (["--config.export.license", "--odd"], "export", "license", "--odd"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_overrides_in_every_spelling(said, argv, section, key, value):
    for order in (
        [*argv, "--config", ROOT / "configs/quickstart.py:micro"],
        [f"--config={ROOT}/configs/quickstart.py:micro", *argv],
    ):
        code, out, err = said("config", *order)
        assert (code, err) == (0, "") and yaml.safe_load(out)[section][key] == value


def test_files_stand_anywhere_between_options():
    argv = ["a.wav", "--model", "M", "b.wav", "-f", "srt", "-", "--chunked", "--weights=int8", "c.wav"]
    found = transcribe_options.asked(*tree.parsed(["transcribe", *argv]))
    assert found.files == ["a.wav", "b.wav", "-", "c.wav"]
