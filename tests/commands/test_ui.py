"""`moejax ui` as a command: what it refuses before anything is loaded."""

import re
import sys

import pytest

from moejax.__main__ import guarded


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "--model is missing"),
        (["--model", "M", "--port", "70000"], "at most 65535"),
        (["--model", "M", "--ssl_keyfile", "k"], "--ssl_keyfile needs the other"),
        (["--model", "M", "--ssl_keyfile", "k", "--ssl_certfile", "c"], "--ssl_certfile c: there is no such file"),
        (["--model", "M", "--keys", "k"], "ui has no option '--keys'"),
        (["--model", "M", "--opn"], r"did you mean --open\?"),
        (["--model", "M", "--sentences", "x"], "give --pronounce WORKDIR"),
        (["--model", "M", "--pronounce", "W", "--sentences", "x"], "--sentences x: there is no such folder"),
        (
            ["--model", "M", "--pronounce", "a/W", "--pronounce", "a/W"],
            "--pronounce a/W: there is a model 'a/W' already",
        ),
        (["--model", "M", "--port", "0", "--pronounce", "W"], "W has neither rater nor head: moejax rater"),
        (["--model", "M", "--port", "0", "--diarize", "W"], "W has no diarizer: moejax diarizer"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(argv, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert guarded(["ui", *argv]) == 1
    err = capsys.readouterr().err
    assert re.search(words, err) and err.startswith("moejax ui: ") and err.count("\n") == 1


def test_without_the_extra_one_line_says_what_to_install(capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "moejax.ui.layout", raising=False)
    monkeypatch.delattr("moejax.ui.layout", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert guarded(["ui", "--model", "M"]) == 1
    assert capsys.readouterr().err == "moejax ui: ui needs gradio, which is not installed: pip install 'moejax[ui]'\n"
