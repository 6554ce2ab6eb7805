"""What a user can do something about is one line and code 1, wherever it arises; a bug keeps its traceback."""

import ast
import builtins
import errno
import importlib
from pathlib import Path

import pytest
import tiny_job

from moejax import __main__ as cli
from moejax import errors
from moejax.commands import tree
from moejax.convert.torch_file import NotATorchFile
from moejax.train.checkpoint import SaveError
from moejax.work.stage import ABOUT

ROOT = Path(__file__).parent.parent / "moejax"
# What raises a plain error: only moejax itself can use it wrongly (or Python asks for that error, as in __getattr__).
INTERNAL = """
__init__.__getattr__ audio.records.decoded bench.worker._Worker
cohorts.agreement.stability cohorts.assignment.apply_noise cohorts.nuisance.freed cohorts.projection.fit_discriminant
cohorts.projection.fit_pca
convert.hf_whisper.to_hf convert.peft_lora.load_experts convert.peft_lora.save convert.torch_file._Program
convert.torch_file._scalar
data.manifest.Manifest data.pipeline.BatchPlan data.strings.Strings
decode.decoder.Decoder decode.features.Features decode.greedy._check decode.longform.Reading
decode.prefix.starts
nn.audio_llm.Ears nn.connectors.WindowQFormer nn.inject.sizes
ops.alignment.dtw ops.alignment.median_filter ops.audio.mel_filters ops.int8.Int8Matrix ops.pooling.pool
ops.pooling.speech_frames
runtime.faults._pass runtime.files.write_npz runtime.sharding.mesh_sizes
score.bleu._refuse_own_references score.bleu.score score.bootstrap._interval score.bootstrap.gaps
score.bootstrap.resample score.tables.compare score.wer._count score.wer.clipped
speech.phonology.apply
tasks.asr.make_loss tasks.audio_llm.states_of tasks.recognition._encoder tasks.recognition.make_logits
text.writers.timestamp
train.checkpoint.Checkpointer train.params_file.flat_state train.params_file.save_params train.metrics.MetricLog
train.metrics.exact train.optim.make_optimizer train.optim.scale_by_group train.state._groups train.state.train_step
training.crossval.check_fresh
"""
# The function that carries a command out, for what may go wrong below it.
BELOW = {
    "all": "moejax.job.study.study",
    "config": "moejax.job.config.text",
    "plan": "moejax.job.plan.plan",
    "transcribe": "moejax.loading.load",
    "score": "moejax.data.sources.folder.load",
    "enroll": "moejax.audio.read.load",
    "personalize": "moejax.enrolment.profiles.place",
    "speakers": "moejax.enrolment.profiles.names",
    "export": "moejax.export.write.run",
    "bench": "moejax.bench.run.report",
    "models": "moejax.convert.find.here",
    "serve": "moejax.loading.load",
    "align": "moejax.align.placing.opened",
    "recipe": "moejax.diarize.recipes.table.place",
    "diarize": "moejax.diarize.listening.opened",
    "pronounce": "moejax.pronounce.judging.opened",
    "ask": "moejax.tasks.answers.opened",
    "pack": "moejax.data.shards.packing.pack",
    "ui": "moejax.loading.load",
    **dict.fromkeys(ABOUT, "moejax.job.graph.run_stage"),
}
REFUSALS = (
    *(getattr(errors, name) for name in vars(errors) if isinstance(getattr(errors, name), type)),
    *(NotATorchFile, SaveError),
)
REFUSALS = [kind for kind in REFUSALS if issubclass(kind, errors.Refused)]


def plain(path: Path):
    """`module.name` of what raises an error of Python's own in a file; name: of the outermost function or class."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for outer in ast.parse(path.read_text()).body:
        for node in ast.walk(outer):
            if isinstance(node, ast.Raise) and node.exc is not None:
                made = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                if isinstance(made, ast.Name) and isinstance(getattr(builtins, made.id, None), type):
                    yield f"{module}.{getattr(outer, 'name', '')}"


def test_every_raise_but_those_for_programmers_is_a_refusal():
    assert {place for path in ROOT.rglob("*.py") for place in plain(path)} == set(INTERNAL.split())


def test_every_exception_of_our_own_is_a_refusal_or_the_end_of_a_run():
    """A class that derives from Python's own errors alone would be taken for a bug."""
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and path.name != "errors.py":
                bases = {getattr(builtins, base.id, None) for base in node.bases if isinstance(base, ast.Name)}
                assert not any(isinstance(base, type) and issubclass(base, BaseException) for base in bases), node.name


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """`command(name, error, *flags)`: (exit code, stderr) of a command below which `error` is raised."""
    monkeypatch.chdir(tmp_path)
    config = str(tiny_job.write_config(tmp_path / "tiny.py"))
    Path("a.wav").touch()
    Path("a.txt").write_text("what is said in it")
    run = ["--config", config, "--workdir", "W"]
    options = {
        "transcribe": ["a.wav", "--model", "M"],
        "export": ["--workdir", "W", "--to", "hf", "--output", "D"],
        "bench": [],
        "models": [],
        "serve": ["--model", "M", "--port", "0"],
        "align": ["a.wav", "--model", "M"],
        "recipe": ["folder", "."],
        "diarize": ["a.wav", "--model", "M"],
        "pronounce": ["a.wav", "--model", "M"],
        "ask": ["a.wav", "--model", "M", "--task", "transcribe"],
        "pack": [".", "P", "--source", "folder"],
        "ui": ["--model", "M", "--port", "0"],
        "score": ["--model", "M", "--data", "."],
        "enroll": ["a.wav", "--name", "anna"],
        "personalize": ["a.wav", "--name", "anna", "--model", "M"],
        "speakers": [],
    }
    # What a run looks at before its first stage is not what this is about.
    monkeypatch.setattr("moejax.job.graph.outside_inputs", lambda *_: {})

    def call(name, error, *flags):
        def fail(*_, **__):
            raise error

        module, _, function = BELOW[name].rpartition(".")
        monkeypatch.setattr(importlib.import_module(module), function, fail)
        code = cli.guarded([name, *options.get(name, run), *flags])
        return code, capsys.readouterr().err

    return call


@pytest.mark.parametrize("name", [*tree.COMMANDS, *ABOUT])
def test_a_refusal_below_any_command_is_one_line_and_a_bug_a_traceback(command, name):
    assert command(name, errors.BadValue("no such\n  thing: 3")) == (1, f"moejax {name}: no such thing: 3\n")
    for error, flags in ((errors.BadValue("x"), ["--traceback"]), (ValueError("x"), []), (OSError("x"), [])):
        with pytest.raises(type(error)):
            command(name, error, *flags)


@pytest.mark.parametrize("kind", REFUSALS)
def test_any_kind_of_refusal_is_one_line(command, kind):
    assert command("config", kind("no 'such' thing")) == (1, "moejax config: no 'such' thing\n")
    with pytest.raises(kind):
        command("config", kind("no such thing"), "--traceback")


def test_what_the_file_system_denies_is_one_line(command):
    for error in (FileNotFoundError(2, "No such file", "x.wav"), OSError(errno.ENOSPC, "No space left on device")):
        assert command("config", error) == (1, f"moejax config: {error}\n")


@pytest.mark.parametrize("bug", [ValueError, KeyError, TypeError, OSError, AssertionError, RuntimeError, ImportError])
def test_a_bug_keeps_its_traceback_whatever_its_type(command, bug):
    for flags in ((), ("--traceback",)):
        with pytest.raises(bug):
            command("config", bug("x"), *flags)


@pytest.mark.parametrize("name", ["all", "base", "evaluate"])
def test_a_run_that_was_asked_to_stop_says_so_with_its_code(command, name):
    assert command(name, errors.Preempted("step 3 is saved")) == (75, f"moejax {name}: step 3 is saved\n")


def test_a_refusal_is_also_the_error_that_python_programs_expect():
    for kind in REFUSALS:
        if kind is not errors.Refused:
            assert issubclass(kind, (ValueError, TypeError, KeyError, OSError, ImportError, RuntimeError))
        assert str(kind("one line")) == "one line"
