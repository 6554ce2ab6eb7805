"""`moejax ask` on a folder of the published layout."""

import numpy as np
import pytest
import salmonn_folder
import soundfile

from moejax.__main__ import guarded
from moejax.commands import ask
from moejax.nn import quantize
from moejax.tasks import answers, audio_llm


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return salmonn_folder.write(tmp_path_factory.mktemp("salmonn"))


@pytest.fixture
def said(capsys):
    """(exit code, stdout, stderr) of a command line."""
    return lambda *argv: (guarded([str(arg) for arg in argv]), *capsys.readouterr())


def write(path, seconds, seed):
    wave_S = 0.1 * np.random.default_rng(seed).normal(size=int(16000 * seconds))
    soundfile.write(path, wave_S.astype(np.float32), 16000, subtype="FLOAT")
    return wave_S.astype(np.float32)


def test_answers_of_a_folder_and_what_is_too_long(said, model, tmp_path):
    waves = [write(tmp_path / f"{n}.wav", 0.6 + 0.1 * n, n) for n in range(2)]
    write(tmp_path / "long.wav", 1.2, 3)
    options = ("--question", "w3 w4", "--model", model, "--beams", 1, "--most", 5, "--batch_size", 2)
    code, out, err = said("ask", tmp_path / "0.wav", tmp_path / "1.wav", *options)
    made = answers.opened(model)
    want = made(waves, ["w3 w4"] * 2, beams=1, most=5, route=answers.one_lora(2))
    assert (code, err) == (0, "") and all(want)
    assert out.splitlines() == [f"{tmp_path / f'{n}.wav'}: {want[n]}" for n in range(2)]
    other = made(waves, ["w3 w4"] * 2, beams=1, most=5, route=answers.one_lora(2), scale=0.0)
    assert other != want  # the LoRA of the checkpoint is in the answers
    code, out, _ = said("ask", tmp_path / "long.wav", tmp_path / "none.wav", *options)
    assert code == 1 and "none.wav: no such file" in out and "long.wav: too_long" in out


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (("--question", "a"), "--model is missing"),
        (("--model", "m"), "ask one question"),
        (("--model", "m", "--question", "a", "--task", "transcribe"), "ask one question"),
        (("--model", "m", "--task", "sing"), "unknown task 'sing'; known: transcribe"),
        (("--model", "m", "--task", "describe", "--weights", "int4"), "unknown format 'int4'"),
        (("--model", "m", "--task", "describe", "--beams", 0), "--beams must be at least 1"),
        (
            ("--model", "m", "--task", "describe", "--system", "salmonn_moe"),
            "--system salmonn_moe is of a workdir, and m",
        ),
        (("--model", "m", "--task", "describe"), "m/whisper: there is no such folder"),
    ],
)
def test_what_is_refused(said, tmp_path, monkeypatch, argv, match):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.wav", 0.5, 0)
    code, out, err = said("ask", "a.wav", *argv)
    assert (code, out) == (1, "") and match in err and len(err.splitlines()) == 1


def test_tasks_are_those_that_have_a_question():
    assert tuple(audio_llm.QUESTIONS) == ask.TASKS and quantize.KINDS == ask.WEIGHTS


def test_a_folder_that_lacks_a_part(model, tmp_path):
    for name in ("whisper", "llama"):
        (tmp_path / name).symlink_to(model / name)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of SALMONN \(\*\.pth\)"):
        answers.opened(tmp_path)
    for name in ("one.pth", "two.pth"):
        (tmp_path / name).symlink_to(model / "salmonn_v1.pth")
    with pytest.raises(ValueError, match=r"2 files \*\.pth, such as one\.pth and two\.pth"):
        answers.opened(tmp_path)
