"""The stage `translate` by DeepL, against a local server that speaks its protocol."""

import json

import deepl.http_client
import pytest
import tiny_job
from deepl_server import KEY, Server
from ml_collections import ConfigDict

import moejax
from moejax.errors import BadValue
from moejax.job import config, graph
from moejax.work.folder import Work


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"target": "klingon"}, "config section 'translate': DeepL does not write 'klingon'; it writes ar, bg"),
        (
            {"target": "pl", "deepl_formality": "less", "deepl_instructions": ("Short.",)},
            "custom_instructions does not",
        ),
        ({"target": "uk", "deepl_formality": "less"}, "formality less does not exist for UK; it does for de, es"),
        ({"deepl_memory_threshold": 80}, "translation_memory_threshold needs translation_memory"),
        ({"deepl_instructions": ("a" * 301,)}, "has 301 characters"),
        ({"deepl_formality": "polite"}, "'translate.deepl_formality' is 'polite'; known: default, less"),
        ({"backends": ("offline",), "dry_run": True}, "translate.dry_run needs 'deepl' in translate.backends"),
    ],
)
def test_what_deepl_lacks_is_refused_with_the_config(values, words):
    with pytest.raises(ValueError, match=words) as caught:
        config.resolve(ConfigDict({"translate": {"backends": ("deepl",), **values}}))
    assert "\n" not in str(caught.value)


def test_regions_and_whispers_codes_are_taken():
    for language, target in (("no", "en"), ("en", "pt-BR"), ("de", "no")):
        config.resolve(
            ConfigDict({"data": {"language": language}, "translate": {"backends": ("deepl",), "target": target}})
        )


def resolved(**values):
    return config.resolve(ConfigDict({"translate": {"backends": ("deepl",), **values}}))


def test_keys_that_came_later_leave_old_workdirs_finished():
    """Their defaults are as if there were no such keys."""
    inputs = graph.stage_inputs("translate", resolved(), {"evaluate": "digest"})
    ours = {key for key in inputs if key.startswith("translate.d")}
    assert ours == {"translate.deepl_server", "translate.deepl_cache"}
    assert graph.outside_inputs("translate", resolved()) == {}
    assert "translate.dry_run" in graph.stage_inputs("translate", resolved(dry_run=True), {"evaluate": "digest"})


def test_a_glossary_file_counts_by_its_entries_and_is_missed_before_any_work(tmp_path):
    file = tmp_path / "terms.tsv"
    changed = resolved(deepl_glossary=str(file))
    with pytest.raises(BadValue, match=r"terms.tsv cannot be read \(No such file"):
        graph.outside_inputs("translate", changed)
    file.write_text("heart\tHerz\n")
    first = graph.outside_inputs("translate", changed)
    file.write_text("\nheart\tHerz\n\n")
    assert graph.outside_inputs("translate", changed) == first
    file.write_text("heart\tHERZ\n")
    assert graph.outside_inputs("translate", changed) != first
    for value in ("learnt", "b3f1f1c2-0000-4000-8000-000000000000"):
        assert graph.outside_inputs("translate", resolved(deepl_glossary=value)) == {}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("DEEPL_AUTH_KEY", KEY)
    monkeypatch.setattr(deepl.http_client, "min_connection_timeout", 10.0)
    running = Server()
    yield running
    running.close()


@pytest.mark.job
def test_the_stage_says_what_it_costs_bills_once_and_learns_a_glossary(server, tmp_path_factory, tmp_path, monkeypatch):
    job = tiny_job.copy(tiny_job.shared(tmp_path_factory), tmp_path)
    monkeypatch.chdir(job)

    def run(**more):
        settings = {"backends": ("deepl",), "deepl_server": server.url, "deepl_cache": str(tmp_path / "cache")} | more
        with tiny_job.quick():
            values = {f"translate__{key}": value for key, value in settings.items()}
            moejax.run(tiny_job.config(**values), "W", "translate", quiet=True)
        log = Work("W", quiet=True).path("log.txt").read_text().split("[translate] translate the")[-1]
        words = ("DeepL EN to DE", "terms learnt", "nothing is sent")
        return [line[19:].strip() for line in log.splitlines() if any(word in line for word in words)]

    costs, dry = run(dry_run=True)
    assert "characters to be billed, in" in costs and "0 of 500000 characters of this period are used" in costs
    assert dry.endswith("nothing is sent") and server.calls == ["GET /v2/usage"]
    assert json.loads((job / "W/translate/summary.json").read_text()) == {}
    (said,) = run()
    assert said == costs and f" {server.used} characters to be billed, in" in said
    assert f"in {len(server.requests)} request" in said
    systems = [path.name.removesuffix(".deepl.jsonl") for path in (job / "W/translate").glob("*.deepl.jsonl")]
    assert set(systems) >= {"transcript", "base", "moe"}
    for record in tiny_job.records(job / "W/translate/transcript.deepl.jsonl"):
        assert record["hypothesis"] == record["source"].upper()
    paid, count = server.used, len(server.calls)
    (said,) = run(systems=("moe",))
    assert " 0 characters to be billed, in 0 requests;" in said
    assert server.used == paid and len(server.calls) == count and set(server.carried.values()) == {1}
    said = run(deepl_glossary="learnt")
    assert said[0].startswith("glossary: 0 terms learnt from ")  # words of two letters are no terms
    assert server.used == paid and not server.glossaries
