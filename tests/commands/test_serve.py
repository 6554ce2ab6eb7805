"""`moejax serve` as a command: what it refuses before anything is loaded, and a whole process that is told to stop."""

import concurrent.futures
import os
import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
import soundfile
import tiny_model

from moejax.__main__ import guarded
from moejax.commands import serve


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "--model is missing"),
        (["--model", "M", "--port", "70000"], "at most 65535"),
        (["--model", "M", "--port", "x"], "--port wants a whole number, got 'x'"),
        (["--model", "M", "--batch_size", "0"], "--batch_size wants a whole number from 1 on"),
        (["--model", "M", "--max_seconds", "0"], "--max_seconds wants a number above 0"),
        (["--model", "M", "--max_megabytes", "nan"], "wants a number from 0 on"),
        (["--model", "M", "--keys", "nowhere.txt"], "--keys nowhere.txt: there is no such file"),
        (["--model", "M", "--model", "M"], "there is a model 'M' already"),
        (["--model", "M", "--host", "no.such.host.invalid"], "--host no.such.host.invalid --port 8000: "),
        (["--model", "M", "--prot", "1"], r"did you mean --port\?"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(argv, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert guarded(["serve", *argv]) == 1
    err = capsys.readouterr().err
    assert re.search(words, err) and err.startswith("moejax serve: ") and err.count("\n") == 1


def test_a_port_that_is_taken_is_known_before_a_model_is_loaded(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert guarded(["serve", "--model", "M", "--port", str(taken.getsockname()[1])]) == 1
    assert "in use" in capsys.readouterr().err


def test_without_the_extra_one_line_says_what_to_install(capsys, monkeypatch):
    for name in ("moejax.serve.app", "moejax.serve.uploads"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delattr("moejax.serve.app", raising=False)
    assert guarded(["serve", "--model", "M"]) == 1
    assert capsys.readouterr().err.endswith("pip install 'moejax[serve]'\n")


def test_keys_come_from_a_file_or_the_environment(tmp_path, monkeypatch):
    (tmp_path / "keys").write_text("# of the clinic\nabc\n\n def  # of the ward\n")
    assert serve._keys(str(tmp_path / "keys")) == ["abc", "def"]
    monkeypatch.setenv(serve.VARIABLE, "x, y,")
    assert serve._keys(None) == ["x", "y"]
    (tmp_path / "none").write_text("# nobody\n")
    with pytest.raises(ValueError, match="no key in it"):
        serve._keys(str(tmp_path / "none"))


@pytest.mark.faults
def test_a_process_answers_what_it_accepted_when_it_is_terminated(tmp_path):
    """Real signals: clients that wait for company in the queue are answered, and no file is left."""
    folder, temporary = tiny_model.write(tmp_path / "model", timed=False), tmp_path / "tmp"
    temporary.mkdir()
    soundfile.write(tmp_path / "a.wav", tiny_model.sound(60.0), tiny_model.RATE, subtype="FLOAT")
    content = (tmp_path / "a.wav").read_bytes()
    command = [sys.executable, "-m", "moejax", "serve", "--model", str(folder), "--port", "0"]
    command += ["--batch_wait_ms", "60000", "--batch_size", "8"]
    environment = {**os.environ, "TMPDIR": str(temporary), serve.VARIABLE: "secret"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            url = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/v1 \(model\)\n", said).group(1)
            headers = {"Authorization": "Bearer secret"}
            assert httpx.get(f"{url}/v1/models").status_code == 401

            def ask(_):
                files = {"model": (None, "model"), "file": ("a.wav", content)}
                return httpx.post(f"{url}/v1/audio/transcriptions", files=files, headers=headers, timeout=120)

            with concurrent.futures.ThreadPoolExecutor(3) as pool:
                asked = [pool.submit(ask, number) for number in range(3)]
                while "moejax_queue_length 3\n" not in httpx.get(f"{url}/metrics", headers=headers).text:
                    time.sleep(0.05)
                process.send_signal(signal.SIGTERM)
                answers = [one.result(120) for one in asked]
            assert [answer.status_code for answer in answers] == [200] * 3
            assert len({answer.json()["text"] for answer in answers}) == 1 and answers[0].json()["text"]
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert list(temporary.iterdir()) == []
