"""`moejax score --translate` on the tiny job's workdir, through a local server that speaks DeepL's protocol."""

import csv
import json

import deepl.http_client
import pytest
import soundfile
import tiny_job
import tiny_model
from deepl_server import KEY, Server

from moejax import __main__ as cli
from moejax.assess import groups
from moejax.audio import read
from moejax.data.manifest import Utterance
from moejax.job.opening import open_translator
from moejax.score import bleu

pytestmark = pytest.mark.job
SAID = tiny_job.sentences(8, 77)
DEVICES = ("phone", "phone", "headset", "")


@pytest.fixture(scope="module", autouse=True)
def quick():
    with tiny_job.quick():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_job.shared(tmp_path_factory) / "W"


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPL_AUTH_KEY", KEY)
    monkeypatch.setenv("HOME", str(tmp_path))  # its cache
    monkeypatch.setattr(deepl.http_client, "min_connection_timeout", 10.0)
    running = Server()
    monkeypatch.setenv("DEEPL_SERVER_URL", running.url)
    yield running
    running.close()


@pytest.fixture
def call(capsys):
    def run(*arguments):
        code = cli.guarded([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def corpus(tmp_path):
    """`write(reference, by)` writes a folder of eight recordings; every reference is `reference` of its number."""

    def write(reference=None, by="human"):
        folder = tmp_path / "corpus"
        folder.mkdir(exist_ok=True)
        rows = []
        for n in range(8):
            soundfile.write(folder / f"{n}.wav", tiny_job.speak(SAID[n], 0.95, 0.001, n), tiny_job.RATE)
            given = (reference(n), by) if reference else ()
            rows.append((f"{n}.wav", SAID[n], "ab"[n % 2], DEVICES[n % 4], *given))
        columns = ("file", "text", "speaker", "device", "translation", "translation_source")
        tiny_job.write_table(folder, rows, columns[: len(rows[0])])
        return folder

    return write


def records(path):
    return {record["id"]: record for record in tiny_job.records(path)}


def asked(model, folder, *more):
    return (
        "score",
        "--model",
        model,
        "--system",
        "base",
        "--data",
        folder,
        "--language",
        "en",
        "--translate",
        "de",
        "--translator",
        "deepl",
        *more,
    )


def test_what_was_heard_is_translated_written_and_scored_by_group(model, corpus, call, server, tmp_path):
    first = asked(model, corpus(), "--keep", tmp_path / "keep", "--translations", tmp_path / "t.jsonl")
    code, out, err = call(*first)
    assert code == 0 and "BLEU" not in out
    lines = err.splitlines()
    assert lines[0].startswith("moejax score: DeepL EN to DE: ") and "characters to be billed" in lines[0]
    assert lines[1].endswith(
        f"has no column translation: nothing is scored by BLEU, the translations are in {first[-1]}"
    )
    made = records(tmp_path / "t.jsonl")
    assert len(made) == 8 and sum(one["heard"] == one["text"] for one in made.values()) > 4
    for one in made.values():
        assert one["translation"] == one["heard"].upper() and one["reference"] == ""
        assert (one["language"], one["target"], one["translator"]) == ("en", "de", "deepl")

    said = {name: one["translation"] for name, one in made.items()}
    folder = corpus(lambda n: said[str(n)] + " am Ende" * (n % 3) or "nichts" if n else "")  # the first one has none
    csv_file = tmp_path / "s.csv"
    code, out, err = call(*asked(model, folder, "--keep", tmp_path / "keep", "--csv", csv_file, "--by", "device"))
    assert (code, err) == (0, "")  # nothing is billed twice
    rows = list(csv.DictReader(csv_file.read_text().splitlines()))
    assert [(row["group"], row["name"]) for row in rows] == [("all", "all"), ("device", "headset"), ("device", "phone")]
    for row in rows:
        own = [n for n in range(1, 8) if row["name"] in ("all", DEVICES[n % 4])]
        references = [said[str(n)] + " am Ende" * (n % 3) or "nichts" for n in own]
        found = bleu.score([said[str(n)] for n in own], references)
        assert (float(row["bleu"]), float(row["chrf"])) == (found["bleu"], found["chrf"])
        assert row["sentences"] == str(len(own))
    assert "| W | deepl | 7 |" in out and found["signature"] in out


def test_a_translator_is_not_scored_against_itself(model, corpus, call, server):
    code, out, err = call(*asked(model, corpus(lambda n: "ein Satz", by="DeepL:2026")))
    assert code == 0 and "BLEU" not in out and "WER %" in out
    assert "moejax score: W.deepl is not scored: 8 of 8 references were made by its translator" in err


def test_a_dry_run_says_what_it_would_cost(model, corpus, call, server, tmp_path):
    code, out, err = call(*asked(model, corpus(lambda n: "ein Satz"), "--dry_run", "--translations", tmp_path / "t"))
    assert code == 0 and "characters to be billed" in err and "BLEU" not in out
    assert server.calls == ["GET /v2/usage"] and not (tmp_path / "t").exists()


def test_texts_are_kept_with_their_language(model, corpus, call, server, tmp_path, monkeypatch):
    folder, keep = corpus(lambda n: "ein Satz"), tmp_path / "keep"
    plain = ("score", "--model", model, "--system", "base", "--data", folder, "--keep", keep)
    assert call(*plain)[0] == 0
    monkeypatch.setattr("moejax.assess.reading.Listener._texts", None)  # nothing is heard a second time
    code, out, _ = call(*plain, "--translate", "de", "--translator", "deepl")
    assert code == 0 and "| W | deepl | 8 |" in out
    for file in keep.glob("*.json"):
        older = json.loads(file.read_text())
        assert set(older.pop("languages").values()) == {"en"}
        file.write_text(json.dumps(older))
    code, _, err = call(*plain, "--translate", "de", "--translator", "deepl")
    assert code == 1 and "kept without their language: give --language" in err and err.count("\n") == 1


def test_what_is_refused_names_itself(model, corpus, call, server, tmp_path):
    folder = corpus()
    base = ("score", "--model", tiny_model.write(tmp_path / "tiny", timed=True), "--data", folder)
    refusals = {
        (*base, "--translations", "t"): "--translations needs --translate LANGUAGE",
        (*base, "--translator", "deepl"): "--translator needs --translate_to LANGUAGE",
        (*base, "--translate", "xx"): "DeepL does not write that",
        (*base, "--translate", "de", "--translator", tmp_path): "or a folder with model.bin",
        (*base, "--translate", "de", "--translator", "offline"): "has no translator of its own",
        (*base, "--by", "shoe"): "unknown group 'shoe'; known: speaker, cohort, etiology, severity, device, accent",
    }
    for arguments, words in refusals.items():
        code, out, err = call(*arguments)
        assert (code, out) == (1, "") and words in err and err.count("\n") == 1, err
    assert not server.requests


def test_a_workdir_translates_by_its_own_translator(model, call, tmp_path):
    job, out_file = model.parent, tmp_path / "t.jsonl"
    arguments = ("--model", job / "W", "--system", "base,moe", "--data", job / "corpus", "--limit", "2")
    code, out, err = call("score", *arguments, "--translate", "de", "--translations", out_file)
    assert (code, err) == (0, "")
    made = tiny_job.records(out_file)
    assert {one["system"] for one in made} == {"base", "moe"} and len(made) == 24
    translator, _ = open_translator(job / "W")
    assert [one["translation"] for one in made] == translator.translate([one["heard"] for one in made])
    assert "| W | offline | 12 |" in out and "| W moe | offline | 12 |" in out and "p against `W.offline`" in out


def test_what_is_measured_is_cut_into_thirds_as_in_a_report(tmp_path):
    own = []
    for n in range(7):
        tiny_model.record(tmp_path / f"{n}.wav", 0.5 + 0.3 * n, seed=n)
        own.append(Utterance(id=str(n), audio=str(tmp_path / f"{n}.wav"), text="ba " * (1 + n // 3), device="x"))
    found = groups.members(own, ("device", "seconds", "words", "snr"))
    assert found["all", "all"] == found["device", "x"] == list(range(7))
    of = {group: {name: places for (kind, name), places in found.items() if kind == group} for group in groups.GROUPS}
    assert len(of["seconds"]) == 3 and sum(of["seconds"].values(), []) == list(range(7))
    assert list(of["seconds"])[0].startswith("up to ") and list(of["seconds"])[0].endswith(" s")
    assert sorted(sum(of["snr"].values(), [])) == list(range(7))
    snr = [read.load(one.audio).snr for one in own]
    low, high = (next(iter(of["snr"].values())), list(of["snr"].values())[-1])
    assert max(snr[i] for i in low) < min(snr[i] for i in high)
    assert groups.named(own) == []
