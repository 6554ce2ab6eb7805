"""What a terminal sees of a command: progress, help, and nothing where nobody reads on."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import record

from moejax import __main__ as cli
from moejax.commands import inputs, progress

ROOT = Path(__file__).parent.parent.parent


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_sees_seconds_time_left_and_speed(tmp_path):
    sources, _ = inputs.find([str(record(tmp_path / name, 4.0)) for name in ("a.wav", "b.wav")])
    screen = Terminal()
    with progress.Progress(sources, screen) as bar:
        bar.opened(0, 64000)
        bar.heard(0, 2.0)
        bar.done(0)
        bar.done(1)
    shown = screen.getvalue()
    assert "0/2 files" in shown and "/8 s of audio [" in shown and "2/2 files" in shown and "<" in shown
    assert re.search(r"2 files, 8.0 s of audio in \d+\.\d s: [\d.]+ x real time \(factor [\d.]+\)\n$", shown)
    quiet = io.StringIO()
    with progress.Progress(sources, quiet) as bar:
        bar.done(0)
    assert quiet.getvalue() == ""


def test_a_recording_is_done_when_the_next_one_is_asked_for(tmp_path):
    sources, _ = inputs.find([str(record(tmp_path / name, 4.0)) for name in ("a.wav", "b.wav", "c.wav")])
    with progress.Progress(sources, Terminal()) as bar:
        for number, name in enumerate(bar.each(["a", "b", "c"])):
            assert bar.finished == set(range(number)), name
    assert bar.finished == {0, 1, 2} and sum(bar.at) == 12.0


def test_every_command_that_goes_through_recordings_says_how_far_it_is():
    commands = [path for path in (ROOT / "moejax").rglob("*.py") if "inputs.find(" in path.read_text()]
    assert len(commands) >= 5
    silent = [path.name for path in commands if "Progress(" not in path.read_text()]
    assert silent == ["voices.py"]  # a few phrases of one voice


@pytest.mark.parametrize(
    "argv", [["--help"], ["transcribe", "--help"], ["config", "--config", str(ROOT / "configs/quickstart.py")]]
)
def test_a_reader_that_goes_away_is_no_error(argv):
    """`moejax X | head` where head has ended before the first line comes."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "moejax", *argv],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert done.returncode in (0, 141) and done.stderr == ""  # argparse does not report that nobody reads its help


def test_help_teaches_by_examples_first(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["transcribe", "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and out.index("examples:") < out.index("options:") and "exit codes" in out
    assert max(map(len, out.splitlines())) <= 120
