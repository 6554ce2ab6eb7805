"""Many clients at a server: what they are told, what the table makes of it, and a run of ours on a tiny model."""

import json
import sys

import pytest
import soundfile
import tiny_model

from moejax.__main__ import guarded
from moejax.bench import engines, served, serving, serving_table, workloads
from moejax.bench.served import Load, Served, ServerError
from moejax.commands import tree
from moejax.commands.bench import settings

# Says who asked for what, a moment later; a model called as by the benchmark, else an error.
ECHO = """
import email, http.server, json, time
class Echo(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        head = f"Content-Type: {self.headers['Content-Type']}\\r\\n\\r\\n".encode()
        form = email.message_from_bytes(head + self.rfile.read(int(self.headers["Content-Length"])))
        parts = {part.get_param("name", header="Content-Disposition"): part.get_payload(decode=True)
                 for part in form.get_payload()}
        time.sleep(0.3)
        fine = self.path == "/v1/audio/transcriptions" and parts["language"] != b"xx"
        said = f"{parts['model'].decode()} {len(parts['file'])}  {parts['language'].decode()}"
        answer = json.dumps({"text": said} if fine else {"error": "no such language"}).encode()
        self.send_response(200 if fine else 400)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
print("loading", flush=True)
print(f"http://127.0.0.1:{server.server_port}/v1 (x)", flush=True)
server.serve_forever()
"""


def parse(argv):
    return settings(*tree.parsed(["bench", *argv]))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["serve"], "bench serve wants recordings: either --data FOLDER or --files"),
        (["serve", "mel", "--data", "a"], "serve is a table of its own"),
        (["serve", "transcribe", "--data", "a"], "is a table of its own"),
        (["serve", "--data", "a", "--workloads", "talk"], "bench serve has no --workloads"),
        (["transcribe", "--data", "a", "--clients", "3"], "bench transcribe has no --clients"),
        (["serve", "--data", "a", "--clients", "0"], "--clients must be positive, got 0"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(argv, message):
    with pytest.raises(ValueError, match=message) as refused:
        parse(argv)
    assert "\n" not in str(refused.value)
    assert parse(["serve", "--data", "x", "--clients", "7"]).clients == 7


def recordings(folder, count):
    for place in range(count):
        tiny_model.record(folder / f"{place}.wav", 0.2 + 0.1 * place, place)
        (folder / f"{place}.txt").write_text(f"the cat {place}")
    return [str(folder / f"{place}.wav") for place in range(count)]


def test_every_recording_comes_once_before_any_comes_again(tmp_path):
    found = workloads.found(None, tuple(recordings(tmp_path, 5)))
    (tmp_path / "out").mkdir()
    few = serving.chosen(found, 3, tmp_path / "out")
    many = serving.chosen(found, 12, tmp_path / "out")
    assert len({one.text for one in few}) == 3 and [one.text for one in many[:3]] == [one.text for one in few]
    assert sorted(one.text for one in many[:5]) == sorted(one.text for one in found)
    assert many[5:10] == many[:5] and all(soundfile.info(one.path).samplerate == 16000 for one in many)


def test_clients_ask_all_at_once_and_each_is_told_its_own(tmp_path):
    files = [tmp_path / f"{size}.wav" for size in (5, 50, 500, 5000, 7, 70)]
    for file in files:
        file.write_bytes(b"\r\n" * (int(file.stem) // 2) + b"x" * (int(file.stem) % 2))
    server = Served([sys.executable, "-c", ECHO], {}, 60)
    try:
        assert server.started > 0 and server.address.endswith("/v1")
        found = server.load(files, "en", len(files))
        assert found.texts == [f"bench {file.stem} en" for file in files]
        assert found.seconds < 0.3 * len(files) and min(found.waits) >= 0.3 and max(found.waits) <= found.seconds
        assert server.load(files[:3], "en", 1).seconds >= 0.9
        with pytest.raises(ServerError, match='answer 400: {"error": "no such language"}'):
            server.ask(files[0], "xx")
    finally:
        server.close()
    with pytest.raises(ServerError, match="no answer"):
        server.ask(files[0], "en")


def test_a_server_that_does_not_come_up_says_why():
    with pytest.raises(ServerError, match="ended with code 3: no such model"):
        Served([sys.executable, "-c", "import sys; print('no such model', file=sys.stderr); sys.exit(3)"], {}, 60)
    with pytest.raises(ServerError, match="ended with code -9"):
        Served([sys.executable, "-c", "import time; time.sleep(60)"], {}, 0.5)


def measured(engine, pipeline, seconds, **more):
    row = {"engine": engine, "pipeline": pipeline, "seconds": seconds, "start": 2.0, "p50": 1.0, "p95": 3.0}
    row |= {"processor": None, "alone_seconds": 9.0, "as_alone": 2, "texts": ["a", "b"], "wer": 0.05, "note": ""}
    return row | {"why": "", "first_start": 20.0 if engine == "moejax" else None} | more


def test_the_table_has_the_ratio_over_the_peers_quickest():
    rows = [measured("moejax", "float32", 6.0), measured("faster-whisper", "int8", 4.0)]
    rows += [measured("faster-whisper", "float32", 8.0, note="others used 0.9 cores")]
    rows += [measured("moejax", "bfloat16", None, why="answer 500: x")]
    report = {"rows": rows, "audio": 60.0, "shortest": 1.0, "longest": 30.0, "load": (1.5,), "seconds": 99.0}
    report |= {"machine": {"cpu": "C", "cores": 2}, "settings": {"clients": 2, "model": "m", "language": "en"}}
    report["settings"]["calls"] = 2
    lines = serving_table.text(report).splitlines()
    assert lines[1].split() == [
        "moejax",
        "float32",
        "2.0",
        "6.0",
        "8.0",
        "0.100",
        "1.0",
        "3.0",
        "-",
        "9.0",
        "2/2",
        "5.00",
        "1.50",
    ]
    assert lines[2].endswith("1.00") and lines[3].endswith("2.00  others used 0.9 cores")
    assert "not measured" in lines[4] and lines[4].endswith("answer 500: x")
    assert "float32: first start, nothing compiled: 20.0 s" in lines[5]


def test_a_row_is_the_median_of_its_clean_loads():
    row = serving.Row(engines.SERVERS[0], None, "")
    assert row.best(1) == (None, "")
    row.loads = [Load([], [], seconds, 0.0, others) for seconds, others in ((5.0, 0.9), (3.0, 0.7), (4.0, 0.8))]
    assert (row.best(2)[0].seconds, row.best(2)[1]) == (4.0, "others used 0.8 cores")
    row.loads += [Load([], [], 9.0, 0.0, 0.0), Load([], [], 8.0, 0.0, None)]
    assert (row.best(2)[0].seconds, row.best(2)[1]) == (8.0, "")


@pytest.mark.compiled
def test_a_run_of_ours_on_a_tiny_model(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(served.load, "available", lambda: False)  # the tests' machine is not quiet
    monkeypatch.setattr(serving, "SERVERS", engines.SERVERS[:1])
    model, file = tiny_model.write(tmp_path / "m", timed=True), tmp_path / "bench.json"
    asked = ["--clients", "5", "--calls", "1", "--files", *recordings(tmp_path, 3), "--json", str(file)]
    assert guarded(["bench", "serve", "--model", str(model), *asked]) == 0
    (row,) = json.loads(file.read_text())["rows"]
    assert row["why"] == "" and row["first_start"] > row["start"] > 0 and row["p95"] >= row["p50"] > 0
    assert row["as_alone"] == len(row["texts"]) == 5 and len(row["loads"]) == 1
    assert "moejax float32" in capsys.readouterr().out
