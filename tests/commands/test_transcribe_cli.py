"""`moejax transcribe` on real files: what it writes where, what it refuses, and what it does about bad files."""

import functools
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_job
import tiny_model
from tiny_model import record, sound

import moejax.loading
from moejax import __main__ as cli
from moejax.commands import inputs, transcribe_options, translate_options, tree
from moejax.job import opening
from moejax.text import writers

pytestmark = pytest.mark.job

ROOT = Path(__file__).parent.parent.parent
ONCE = ("--temperature", "0", "--temperature-increment-on-fallback", "None", "--guards", "none", "--language", "en")
OPTIONS = {"temperature": (0.0,), "guards": "none", "language": "en"}


@pytest.fixture(scope="module", autouse=True)
def quick():
    with tiny_job.quick():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("cli") / "model", timed=True)


load = functools.cache(moejax.loading.load)  # a model is compiled once for all commands of this file


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    """Every command runs in a folder of its own."""
    monkeypatch.setattr(moejax.loading, "load", load)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(capsys, model):
    """(exit code, stdout, stderr) of `moejax transcribe ... --model MODEL`."""

    def run(*argv, options=ONCE, model=model):
        with pytest.raises(SystemExit) as stop:
            cli.main(["transcribe", *map(str, argv), *options, "--model", str(model)])
        return stop.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def said(model):
    """The recogniser's transcript of a file, with the options of the commands."""
    recognizer = load(str(model), system=None, weights="", adapters=(), route=None)
    return lambda path, **more: recognizer.transcribe(path, **OPTIONS, **more)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


@pytest.mark.parametrize("format", writers.FORMATS)
def test_one_file_goes_to_standard_output_in_any_format(call, said, format):
    path = record("a.wav", 3.0)
    assert call(path, "--format", format) == (0, writers.render(said(path), format), "")
    assert files(".") == ["a.wav"]


def test_all_formats_with_word_times(call, said, desk):
    path = record("talk.flac", 3.0)
    code, out, err = call(
        path, "-f", "all", "-o", "out", "--word_timestamps", "True", "--max_line_width", 12, "--highlight-words"
    )
    assert (code, out, err) == (0, "", "")
    transcript = said(path, word_timestamps=True)
    assert files("out") == [f"talk.{name}" for name in sorted(writers.FORMATS)]
    layout = writers.Layout(max_line_width=12, highlight_words=True)
    for name in writers.FORMATS:
        assert Path(f"out/talk.{name}").read_text() == writers.render(transcript, name, layout)
    assert json.loads(Path("out/talk.json").read_text())["segments"][0]["words"]


def test_every_sound_format_and_length(call, tmp_path):
    """A folder of what people have; nothing of it stops the command."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    record(folder / "a.wav", 2.0)
    record(folder / "a.mp3", 2.0)  # would overwrite a.txt of a.wav
    record(folder / "b.ogg", 2.0, rate=44100, channels=2)
    record(folder / "deep" / "c.FLAC", 40.0)
    record(folder / "blip.wav", 0.05)
    record(folder / ".hidden.wav", 1.0)
    (folder / "notes.txt").write_text("not a recording")
    (folder / "a.srt").write_text("of an earlier run")
    tiny_model.soundfile.write(folder / "silence.wav", np.zeros(16000), 16000)
    code, out, err = call(folder, "--output_dir", "out", "--format", "tsv")
    assert (code, out) == (0, "")
    left, silent = err.splitlines()
    assert left == f"moejax transcribe: warning: {folder}: left out, no audio by the name: notes.txt"
    assert silent.startswith(f"moejax transcribe: warning: {folder}/silence.wav: silent: ")
    assert files("out") == ["a.mp3.tsv", "a.wav.tsv", "b.tsv", "blip.tsv", "deep/c.tsv", "silence.tsv"]
    assert Path("out/silence.tsv").read_text() == "start\tend\ttext\n"
    starts = [int(line.split("\t")[0]) for line in Path("out/deep/c.tsv").read_text().splitlines()[1:]]
    assert starts == sorted(starts) and starts[-1] > 10000


def test_bad_files_are_named_at_the_end_and_the_rest_is_done(call, said):
    good = [record("a.wav", 1.0, 1), record("z.wav", 1.0, 2)]
    Path("broken.wav").write_bytes(b"RIFF no sound at all")
    whole = Path(record("cut.wav", 1.0)).read_bytes()
    Path("cut.wav").write_bytes(whole[: len(whole) // 2])
    Path("none_in.wav").write_bytes(whole[:44].replace(whole[40:44], b"\0\0\0\0"))
    code, out, err = call(good[0], "broken.wav", "cut.wav", "none.wav", "none_in.wav", good[1], "no*.mp3")
    assert code == 1
    assert out == "".join(f"{path}\t{' '.join(said(path).text.split())}\n" for path in (good[0], "cut.wav", good[1]))
    assert all(err.count(name) == 1 for name in ("broken.wav", "cut.wav", "none_in.wav"))
    lines = err.splitlines()
    assert len(lines) == 5 and all(line.startswith("moejax transcribe: ") for line in lines)
    assert lines.pop(0).startswith("moejax transcribe: warning: cut.wav: truncated: the header promises 1.00 s, 0.50 s")
    for name, reason in {
        "broken.wav": "unreadable",
        "none_in.wav": "empty: no samples",
        "none.wav": "no such file",
        "no*.mp3": "no file matches",
    }.items():
        assert any(line.startswith(f"moejax transcribe: {name}: ") and reason in line for line in lines)


def test_the_form_of_the_output_follows_the_format(call, said, monkeypatch):
    """Whatever else is wrong: a program reads it."""
    path = record("a.wav", 1.0)
    code, out, err = call(path, "none.wav", "--format", "srt")
    assert code == 1 and out == writers.render(said(path), "srt") and err.count("none.wav") == 1
    monkeypatch.setattr("moejax.commands.translators.translator", lambda asked: failing)
    for format in ("txt", "srt", "json"):
        code, out, err = call(path, "--format", format, "--translate_to", "de")
        assert (code, out) == (1, writers.render(said(path), format))
        assert err == "moejax transcribe: a.wav: no more characters this month\n"


def failing(transcript):
    raise ValueError("no more characters this month")


def test_a_cut_download_is_written_with_a_warning_and_code_0(call):
    whole = Path(record("a.flac", 3.0)).read_bytes()
    Path("a.flac").write_bytes(whole[: len(whole) // 2])
    code, out, err = call("a.flac")
    assert code == 0 and out
    assert re.fullmatch(
        r"moejax transcribe: warning: a.flac: truncated: the header promises 3.00 s, 1.\d\d s .*\n", err
    )


def test_names_of_250_bytes_and_letters_that_the_terminal_lacks(call, said, monkeypatch):
    name = "ä" * 123 + ".wav"
    assert len(name.encode()) == 250
    path = record(name, 1.0)
    assert call(path, "--format", "all", "-o", "out")[0] == 0 and len(files("out")) == len(writers.FORMATS)
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    record("b.wav", 1.0)
    assert call(path, "b.wav")[0] == 0
    assert screen.buffer.getvalue().decode().splitlines()[0].startswith(f"{name}\t")


def test_results_come_in_the_order_of_the_files(call, said):
    """A long recording is finished after the short ones that share its batches."""
    paths = [record("a.wav", 40.0), record("b.wav", 1.0, 1), record("c.wav", 1.0, 2)]
    code, out, _ = call(*paths, "--batch_size", "3")
    assert code == 0 and [line.split("\t")[0] for line in out.splitlines()] == ["a.wav", "b.wav", "c.wav"]


def test_patterns_name_each_file_once_and_apart(tmp_path, monkeypatch):
    for name in ("day1/a.wav", "day2/a.wav", "day2/b.m4a", "day2/c.txt", "b.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    sources, missing = inputs.find(["day*/*.wav", "day2", "day1/a.wav"])
    assert [source.name for source in sources] == ["day1/a.wav", "day2/a.wav", "day2/b.m4a"] and not missing
    assert [source.stem for source in sources] == ["day1/a.wav", "day2/a.wav", "b"]
    inputs.check_apart(sources)
    (tmp_path / "day1" / "b.wav").touch()
    monkeypatch.chdir("day1")
    sources, _ = inputs.find(["b.wav", "../b.wav"])
    with pytest.raises(ValueError, match="b.wav and ../b.wav would both be called b.wav"):
        inputs.check_apart(sources)


def test_a_folder_keeps_its_folders(tmp_path):
    for name in ("day1/a.wav", "day1/x/a.wav", "day2/b.m4a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [source.stem for source in inputs.find(["day1", "day2/b.m4a"])[0]] == ["a", "x/a", "b"]


class Pipe:
    """Standard input with these bytes."""

    def __init__(self, content):
        self.buffer = io.BytesIO(content)


def test_standard_input_as_a_file_and_as_raw_samples(call, said, monkeypatch):
    path = record("a.wav", 1.5)
    expected = writers.render(said(path), "txt")
    monkeypatch.setattr(sys, "stdin", Pipe(Path(path).read_bytes()))
    assert call("-") == (0, expected, "")
    raw = np.round(sound(1.5) * 32768).astype("<i2").tobytes()
    monkeypatch.setattr(sys, "stdin", Pipe(raw))
    code, out, err = call("-", "--rate", 16000)
    assert code == 0 and out.count("\n") == expected.count("\n") and not err
    monkeypatch.setattr(sys, "stdin", Pipe(b""))
    assert call("-") == (1, "", "moejax transcribe: stdin: nothing came from standard input\n")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["a.wav", "--beams", "3"], r"no option '--beams'; did you mean --beam_size\?"),
        (["a.wav", "--beam_size", "many"], r"--beam_size: 'many' is not a whole number"),
        (["a.wav", "--beam_size", "0"], r"'0' is not a whole number from 1 on"),
        (["a.wav", "--format", "doc"], r"--format.*'doc'.*txt.*all"),
        (["a.wav", "--format", "all"], r"--format all .* give --output_dir"),
        (["a.wav", "b.wav", "--format", "srt"], r"2 files as srt: give --output_dir"),
        (["a.wav", "--language", "xx"], r"unknown language 'xx'; this vocabulary has en .english., de .german."),
        (["a.wav", "--task", "sing"], r"--task.*'sing'.*transcribe.*translate"),
        (["a.wav", "--patience", "2"], r"patience requires beam_size"),
        (["a.wav", "--temperature", "hot"], r"--temperature: 'hot' is not a number"),
        (["a.wav", "--highlight_words"], r"--highlight_words needs --word_timestamps"),
        (["a.wav", "--word_timestamps", "--max_line_count", "2"], r"no effect without --max_line_width"),
        (["a.wav", "--word_timestamps=maybe"], r"'maybe' is neither True nor False"),
        (["a.wav", "--chunked", "--sequential"], r"--sequential.*not allowed with.*--chunked"),
        (["a.wav", "--rate", "8000"], r"--rate is the sampling rate of raw samples on standard input"),
        (["a.wav", "--output_dir", "a.wav/out"], r"--output_dir a.wav/out: cannot be written to"),
        (["a.wav", "--output_dir", "a.wav"], r"--output_dir a.wav: cannot be written to"),
        (["a.wav", "--translate_to", "de"], r"DeepL needs its key in the environment variable DEEPL_AUTH_KEY"),
        (["a.wav", "--translate_to", "de", "--translator", "offline"], r"has no translator of its own"),
        (["a.wav", "--system", "moe"], r"no system 'moe'; it has base"),
        (["none.wav"], r"none.wav: no such file$"),
        (["*.mp3"], r"no file matches$"),
        (["empty"], r"empty: no audio file in this folder; looked for wav "),
        ([], r"usage: moejax transcribe FILE"),
        (["a.wav", "--clip_timestamps", "5,3"], r"clip_timestamps has the clip 5,3, which does not last; give seconds"),
        (
            ["a.wav", "--temperature_increment_on_fallback", "1e-9"],
            r"increment_on_fallback is 1e-09; give a step of 0.01",
        ),
        (["a.wav", "--temperature", "nan"], r"--temperature: 'nan' is not a number"),
        (["a.wav", "--logprob_threshold", "nan"], r"--logprob_threshold: 'nan' is not a finite number"),
        (["a.wav", "--suppress_tokens", "a"], r"suppress_tokens is 'a'; give token ids with commas"),
        (["a.wav", "--language", "Germn"], r"unknown language 'Germn'; did you mean de \(german\)"),
        (["a.wav", "--translate_to", "en"], r"--translate_to en-us by DeepL needs its key"),
        (["a.wav", "--translate_to", "xx"], r"--translate_to xx: DeepL does not write that; it writes ar, bg"),
        (["a.wav", "--fp16", "True"], r"--fp16 True: half precision is --weights bfloat16 here"),
        (["a.wav", "--device", "mps"], r"--device: 'mps' is no device; known: cpu, cuda, gpu, auto"),
        (["a.wav", "--model_dir", "x"], r"no option '--model_dir'; the environment variable HF_HUB_CACHE"),
        (["a.wav", "--chunked", "--condition_on_previous_text", "True"], r"needs the sequential algorithm"),
    ],
    ids=" ".join,
)
def test_what_is_wrong_is_said_in_one_line_before_any_work(call, desk, monkeypatch, argv, words):
    monkeypatch.delenv("DEEPL_AUTH_KEY", raising=False)
    record("a.wav", 0.5)
    record("b.wav", 0.5)
    (desk / "empty").mkdir()
    code, out, err = call(*argv, options=())
    assert code == 1 and not out and err.count("\n") == 1 and err.startswith("moejax transcribe: ")
    assert re.search(words, err.strip()), err
    assert files(".") == ["a.wav", "b.wav"]


def test_an_unknown_model_is_refused_in_one_line(call):
    record("a.wav", 0.5)
    code, out, err = call("a.wav", model="nowhere")
    assert code == 1 and not out and re.fullmatch(r"moejax transcribe: nowhere is neither a moejax workdir .*\n", err)


def parse(argv):
    return transcribe_options.asked(*tree.parsed(["transcribe", *argv]))


def test_options_are_those_that_were_given():
    """Defaults belong to the model: nothing that was not asked for reaches it."""
    assert parse(["a.wav", "--model", "M"]).options == {}
    asked = parse("a.wav --word-timestamps b.wav --model M --condition_on_previous_text False --beam-size 5".split())
    assert asked.files == ["a.wav", "b.wav"]
    assert asked.options == {"word_timestamps": True, "condition_on_previous_text": False, "beam_size": 5}
    step = "--temperature_increment_on_fallback"
    for argv, ladder in {
        ("--temperature", "0"): (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
        ("--temperature", "0.5"): (0.5, 0.7, 0.9),
        ("--temperature", "0", step, "None"): (0.0,),
        ("--temperature", "0,0.5"): (0.0, 0.5),
        (step, "0.5"): (0.0, 0.5, 1.0),
    }.items():
        assert parse(["a.wav", "--model", "M", *argv]).options == {"temperature": ladder}
    more = parse(["-", "--model", "M", "--hotwords", "Zoltan, EMG,", "--logprob_threshold", "-1", "--chunked"])
    assert parse(["a.wav", "--model", "M"]).adapters == () and parse(["a.wav", "--model", "M"]).route is None
    mixed = parse(["a.wav", "--model", "M", "--adapter", "L1", "--adapter=L2", "--route", "0.5,-1"])
    assert (mixed.adapters, mixed.route) == (("L1", "L2"), (0.5, -1.0))
    assert more.options == {"hotwords": ("Zoltan", "EMG"), "logprob_threshold": -1.0, "algorithm": "chunked"}
    assert parse(["a.wav", "--model", "M", "--no_speech_threshold", "None"]).options == {"no_speech_threshold": None}


def test_every_option_reaches_the_recogniser(model):
    """Names that the command line and `Recognizer.transcribe` have in common are meant for it, all of them."""
    options, _ = tree.parsed(["transcribe"])
    flags = {action.dest for action in options.parser._actions}
    recognizer = load(str(model), system=None, weights="", adapters=(), route=None)
    own = {"help", "files", "model", "system", "weights", "format", "output_dir", "rate", "traceback", "translate_to"}
    own |= {"adapter", "route", "dry_run", *translate_options.OF_DEEPL} | {
        "translator",
        "highlight_words",
        "max_line_width",
        "max_line_count",
        "max_words_per_line",
        *("enroll", "speaker", "diarize", "profiles"),
        *("device", "threads", "fp16", "verbose"),
    }
    with pytest.raises(TypeError, match="no option 'zzz'") as raised:
        recognizer.check(zzz=1)
    known = set(str(raised.value).split("known: ")[1].split(", "))
    assert flags - own - {"temperature_increment_on_fallback"} <= known
    assert known - flags == {"early_stopping", "max_initial_timestamp", "ranking", "sample_len"} | {
        *("suppress_blank", "without_timestamps")
    }


def test_a_workdir_translates_its_own_text(call, tmp_path_factory):
    job = tiny_job.shared(tmp_path_factory)
    spoken = tiny_job.records(job / "W" / "translate" / "moe.offline.jsonl")
    heard = next(one for one in spoken if one["source"])
    file = job / "corpus" / f"{heard['id']}.wav"
    common = {"options": (), "model": job / "W"}
    assert call(file, "--translate_to", "de", **common) == (0, heard["hypothesis"] + "\n", "")
    assert call(file, "--translate_to", "de", "-o", "out", **common)[0] == 0
    assert Path(f"out/{file.stem}.txt").read_text() == heard["source"] + "\n"
    assert Path(f"out/{file.stem}.de.txt").read_text() == heard["hypothesis"] + "\n"
    assert call(file, "--translate_to", "German", **common)[1] == heard["hypothesis"] + "\n"
    code, _, err = call(file, "--translate_to", "fr", **common)
    assert code == 1 and "writes 'de', not 'fr'" in err
    code, _, err = call(file, "--adapter", "somewhere", **common)
    assert code == 1 and "adapters are added to a published model" in err


def test_a_workdirs_translator_is_opened_as_it_was_trained(tmp_path_factory, tmp_path):
    """Whatever the newest command's config says, and not before its stage is finished."""
    work = tiny_job.copy(tiny_job.shared(tmp_path_factory), tmp_path / "copy") / "W"
    written = json.loads((work / "config.json").read_text())
    written["config"]["translate"] |= {"width": 998, "target": "fr"}
    (work / "config.json").write_text(json.dumps(written))
    client, target = opening.open_translator(work)
    assert target == "de" and client.translate(["the cat"])
    (work / "translate" / "done.json").unlink()
    with pytest.raises(ValueError, match="the translator needs stage translate, which is not finished"):
        opening.open_translator(work)
