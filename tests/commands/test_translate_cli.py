"""`moejax transcribe --translate_to` by DeepL, against a local server that speaks its protocol."""

import functools
import re
from pathlib import Path

import deepl.http_client
import pytest
import tiny_job
import tiny_model
from deepl_server import KEY, Server
from tiny_model import record

import moejax.loading
from moejax import __main__ as cli
from moejax.commands import transcribe_options, translators, tree

ONCE = ("--temperature", "0", "--temperature-increment-on-fallback", "None", "--guards", "none", "--language", "en")


def parse(*argv):
    return transcribe_options.asked(*tree.parsed(["transcribe", "a.wav", "--model", "M", *argv]))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--dry_run",), "--dry_run needs --translate_to"),
        (("--glossary", "a.tsv"), "--glossary needs --translate_to"),
        (("--translator", "deepl"), "--translator needs --translate_to"),
        (("--translate_to", "de", "--translator", "offline", "--formality", "less"), "--formality is for DeepL"),
        (("--translate_to", "de", "--translator", "offline", "--dry_run"), "--dry_run is for DeepL"),
        (
            ("--translate_to", "de", "--translator", "opus"),
            "--translator opus: deepl, offline, offline_tuned, or a folder with model.bin",
        ),
        (("--translate_to", "de", "--translator", "opus", "--glossary", "x"), "--glossary is for DeepL, not for"),
    ],
)
def test_options_need_what_they_belong_to(argv, words):
    with pytest.raises(ValueError, match=words) as caught:
        parse(*argv)
    assert "\n" not in str(caught.value)


def test_options_are_those_of_deepl():
    asked = parse("--translate_to", "de", "--instruction", "Short.", "--instruction", "Plain.", "--style_rule", "s")
    assert asked.deepl == {"custom_instructions": ["Short.", "Plain."], "style_rule": "s"} and asked.options == {}
    assert parse("--translate_to", "de").deepl == {} and not parse("--translate_to", "de").dry_run


@pytest.mark.parametrize(
    ("argv", "target"),
    [(("en",), "en-us"), (("English",), "en-us"), (("pt",), "pt-br"), (("no",), "nb"), (("zh_TW",), "zh-hant")],
)
def test_targets_in_deepls_words(argv, target):
    assert translators.target_of(parse("--translate_to", *argv)) == (target, "deepl")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("haw",), "DeepL does not write that; did you mean ha"),
        (("de", "--language", "Yoruba"), "DeepL does not read 'yo'; it reads ar"),
        (("uk", "--formality", "less"), "formality less does not exist for UK"),
        (("pl", "--instruction", "Short."), "custom_instructions does not exist for PL"),
        (("de", "--glossary", "none.tsv"), r"none.tsv cannot be read \(No such file"),
    ],
)
def test_what_deepl_lacks_is_refused_before_a_model_is_loaded(argv, words):
    with pytest.raises(ValueError, match=words) as caught:
        translators.target_of(parse("--translate_to", *argv))
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with tiny_job.quick():
        yield tiny_model.write(tmp_path_factory.mktemp("cli") / "model", timed=True)


load = functools.cache(moejax.loading.load)


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr("deepl.http_client._BackoffTimer.BACKOFF_INITIAL", 0.01)
    monkeypatch.setattr(deepl.http_client, "min_connection_timeout", 10.0)
    monkeypatch.setattr(moejax.loading, "load", load)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # of the cache
    monkeypatch.setenv("DEEPL_AUTH_KEY", KEY)
    running = Server()
    monkeypatch.setenv("DEEPL_SERVER_URL", running.url)
    yield running
    running.close()


@pytest.fixture
def call(capsys, model):
    def run(*argv):
        with pytest.raises(SystemExit) as stop:
            cli.main(["transcribe", *argv, *ONCE, "--model", str(model)])
        return stop.value.code or 0, *capsys.readouterr()

    return run


@pytest.mark.job
def test_costs_are_said_first_and_billed_once(server, call, monkeypatch):
    files = [record("a.wav", 3.0, 1), record("b.wav", 3.0, 2)]
    spoken = call(*files)[1]
    monkeypatch.delenv("DEEPL_AUTH_KEY")
    code, out, err = call(*files, "--translate_to", "de", "--dry_run")  # without a key
    line = r"DeepL EN to DE: (\d+) characters to be billed, in (\d) requests?; 0 of (\d+) texts are cached"
    costs = f"moejax transcribe: {line}\n"
    assert (code, out) == (0, spoken) and (promised := re.fullmatch(costs, err)), err
    assert server.calls == []
    monkeypatch.setenv("DEEPL_AUTH_KEY", KEY)
    err = call(*files, "--translate_to", "de", "--dry_run")[2]
    assert err.endswith("; 0 of 500000 characters of this period are used\n") and server.calls == ["GET /v2/usage"]
    code, out, err = call(*files, "--translate_to", "de", "-o", "out")
    assert (code, out) == (0, "") and 1 <= len(err.splitlines()) <= 2 and server.used == int(promised[1])
    assert len(server.requests) == int(promised[2])
    assert err.startswith("moejax transcribe: DeepL EN to DE: ") and err.count("of this period are used") == 1
    for name in ("a", "b"):
        assert Path(f"out/{name}.de.txt").read_text() == Path(f"out/{name}.txt").read_text().upper()
    before = len(server.calls)
    code, _, err = call(*files, "--translate_to", "de", "-o", "out")
    assert (code, err) == (0, "") and len(server.calls) == before  # cached: nothing to say
    err = call(*files, "--translate_to", "de", "--dry_run")[2]
    assert " 0 characters to be billed, in 0 requests;" in err


@pytest.mark.job
def test_a_quota_is_named_with_the_file_and_the_text_is_written(server, call):
    path = record("a.wav", 3.0, 1)
    server.limit = 0
    code, _, err = call(path, "--translate_to", "pt", "-o", "out", "--formality", "more")
    assert code == 1 and Path("out/a.txt").exists() and not Path("out/a.pt.txt").exists()
    assert err.splitlines()[-1].startswith("moejax transcribe: a.wav: DeepL quota used up (456)")
    assert server.requests[0]["target_lang"] == "PT-BR" and server.requests[0]["formality"] == "more"
