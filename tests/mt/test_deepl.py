"""The DeepL back end against a local server that speaks DeepL's protocol over a real socket."""

import hashlib
import json
import threading

import deepl.http_client
import pytest
from deepl_server import KEY

from moejax import mt
from moejax.mt import deepl_client


@pytest.fixture
def translator(server, tmp_path):
    return deepl_client.DeepL(KEY, server.url, tmp_path / "cache")


def test_translates_in_order_with_languages_and_options(server, tmp_path):
    server.own("mine", "en", "de", {}, id="g-1")
    translator = deepl_client.DeepL(KEY, server.url, tmp_path, glossary="g-1", formality="less")
    assert translator.translate(["one", "two", "", "one"]) == ["ONE", "TWO", "", "ONE"]
    (request,) = server.requests
    assert request["text"] == ["one", "two"]
    assert (request["source_lang"], request["target_lang"]) == ("EN", "DE")
    assert (request["glossary_id"], request["formality"]) == ("g-1", "less")


def test_nothing_is_paid_for_twice(server, translator, tmp_path):
    translator.translate(["one", "two"])
    again = deepl_client.DeepL(None, server.url, tmp_path / "cache")  # no key needed for what is cached
    assert again.translate(["two", "one"]) == ["TWO", "ONE"]
    assert len(server.requests) == 1
    translator.translate(["two", "three"])
    assert server.requests[1]["text"] == ["three"]


def test_cache_keys_tell_languages_and_options_apart(server, translator, tmp_path):
    translator.translate(["one"])
    translator.translate(["one"], target="FR")
    deepl_client.DeepL(KEY, server.url, tmp_path / "cache", formality="more").translate(["one"])
    assert len(server.requests) == 3


def test_batches_keep_both_limits(server, translator):
    short = [f"text {i}" for i in range(120)]
    long = ["ü" * 9000 + str(i) for i in range(5)]  # 6 bytes each once escaped: two fit into a request
    seen = []
    assert translator.translate(short + long, progress=lambda *at: seen.append(at)) == [t.upper() for t in short + long]
    assert max(len(r["text"]) for r in server.requests) == deepl_client.BATCH_TEXTS
    assert max(server.sizes) <= 128 * 1024
    assert sum(len(r["text"]) for r in server.requests) == 125
    assert seen[0] == (0, 125) and seen[-1] == (125, 125) and seen == sorted(seen)


def test_a_text_too_long_stops_before_anything_is_billed(server, translator):
    with pytest.raises(deepl_client.TranslationError, match="a text of 200004 bytes exceeds DeepL's"):
        translator.translate(["short", "a" * 200_000])
    assert server.requests == []


@pytest.mark.parametrize("trouble", [429, 503, 529, "lost"])
def test_passing_trouble_is_retried(server, translator, trouble):
    server.script = [trouble]
    assert translator.translate(["one"]) == ["ONE"]
    assert len(server.requests) == 2


def test_quota_exceeded_keeps_what_was_done(server, translator):
    texts = [f"text {i}" for i in range(70)]
    server.script = [200, 456]
    with pytest.raises(deepl_client.TranslationError, match="quota used up") as caught:
        translator.translate(texts)
    assert "\n" not in str(caught.value)
    assert translator.translate(texts) == [t.upper() for t in texts]
    assert [len(r["text"]) for r in server.requests] == [50, 20, 20]


def test_refused_and_missing_keys_name_the_variable(server, tmp_path):
    with pytest.raises(deepl_client.TranslationError, match="DeepL refused the key in DEEPL_AUTH_KEY"):
        deepl_client.DeepL("another key", server.url, tmp_path).translate(["one"])
    with pytest.raises(deepl_client.TranslationError, match="no DeepL key: set DEEPL_AUTH_KEY"):
        deepl_client.DeepL("", server.url, tmp_path).translate(["one"])
    assert len(server.requests) == 1 and not list(tmp_path.rglob("*.json"))


def test_the_key_may_come_from_the_environment(server, tmp_path, monkeypatch):
    monkeypatch.setenv(deepl_client.KEY_VARIABLE, KEY)
    assert deepl_client.DeepL(None, server.url, tmp_path).translate(["one"]) == ["ONE"]


@pytest.mark.parametrize(
    ("script", "message"),
    [([400], "DeepL did not translate 2 texts: Bad request"), (["short"], "1 translations for 2 texts")],
)
def test_other_failures_are_one_line_and_cache_nothing(server, translator, tmp_path, script, message):
    server.script = script
    with pytest.raises(deepl_client.TranslationError, match=message) as caught:
        translator.translate(["one", "two"])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.json"))


def test_a_damaged_cache_file_is_named(server, translator, tmp_path):
    translator.translate(["one"])
    (entry,) = tmp_path.rglob("*.json")
    entry.write_text("{")
    with pytest.raises(deepl_client.TranslationError, match=entry.name):
        translator.translate(["one"])


def test_registry_loads_by_name_and_lists_the_known():
    assert mt.get("deepl") is deepl_client.DeepL
    with pytest.raises(ValueError, match="unknown translator 'depl'; known: deepl"):
        mt.get("depl")


def refused(call, *words) -> str:
    """The one line of the `TranslationError` that it raises, with these words in it."""
    with pytest.raises(deepl_client.TranslationError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line and KEY not in line and all(word in line for word in words), line
    return line


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ([429] * 6, ("did not translate 2 texts", "too many requests (429), after all retries", "cached")),
        ([529] * 6, ("too many requests (529), after all retries",)),
        ([500] * 6, ("out of order (500), after all retries", "try later")),
        ([503] * 6, ("out of order (503), after all retries",)),
        ([456], ("quota used up (456)", "what is done is cached")),
        ([413], ("the request is too large (413)", "split the longest text")),
        ([404], ("(404)", "check the ids of glossary, style and memory")),
        ([400], ("Bad request", "as the script says")),
        ([403], ("refused the key in DEEPL_AUTH_KEY (403)",)),
        ([302], ("0 translations for 2 texts",)),
        (["html"], ("0 translations for 2 texts",)),
        (["lost"] * 6, ("no answer, after all retries", "check the connection")),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) else "",
)
def test_every_refusal_ends_in_one_line_and_stores_nothing(server, translator, tmp_path, script, words):
    server.script = list(script)
    refused(lambda: translator.translate(["one", "two"]), *words)
    assert len(server.requests) == len(script) and not server.script
    assert not list(tmp_path.rglob("*.json"))
    assert translator.translate(["one", "two"]) == ["ONE", "TWO"]  # the same command goes on


def test_a_server_that_is_not_there_is_one_line(server, tmp_path):
    server.http.socket.close()
    client = deepl_client.DeepL(KEY, "http://127.0.0.1:9", tmp_path)
    refused(lambda: client.translate(["one"]), "no answer, after all retries", "check the connection")


def test_a_slow_answer_is_waited_for_and_not_asked_for_again(server, translator, monkeypatch):
    server.script = ["late"]
    assert translator.translate(["one"]) == ["ONE"] and server.carried["one"] == 1
    assert deepl.http_client.min_connection_timeout == deepl_client.PATIENCE >= 60
    monkeypatch.setattr(deepl.http_client, "min_connection_timeout", 0.2)
    monkeypatch.setattr(deepl_client, "PATIENCE", 0.2)
    server.script = ["late"] * 6
    refused(lambda: translator.translate(["two"]), "no answer, after all retries (Request timed out")


def test_a_real_quota_ends_the_run_and_the_next_one_goes_on(server, translator):
    texts, server.limit = [f"text {i:03d}" for i in range(120)], 900
    refused(lambda: translator.translate(texts), "quota used up (456)")
    assert server.used == 800 and sum(server.carried.values()) == 100
    server.limit = 2000
    assert translator.translate(texts) == [t.upper() for t in texts]
    assert set(server.carried.values()) == {1} and server.used == sum(map(len, texts))


def test_a_key_with_a_line_break_is_taken_and_a_broken_one_is_not_shown(server, tmp_path):
    assert deepl_client.DeepL(f" {KEY}\n", server.url, tmp_path).translate(["one"]) == ["ONE"]
    for key in ("secret\nkey", "secrét"):
        line = refused(lambda k=key: deepl_client.DeepL(k, server.url, tmp_path).translate(["two"]), "copy it again")
        assert "secr" not in line
    assert len(server.requests) == 1


@pytest.mark.parametrize("text", ["ä" * 30, "\ud800 half a sign", "a\u2028b", "\x00", "🦻 " * 20, "'\"\\/"])
def test_whatever_the_text_it_comes_back_and_from_the_cache(server, translator, text):
    assert translator.translate([text]) == translator.translate([text]) == [text.upper()]
    assert server.requests[0]["text"] == [text] and server.carried[text] == 1


def test_order_blanks_and_repetitions_survive(server, translator):
    texts = ["b", "", " ", "a", "b", "\n\t", "c", "", "a"] * 30 + [f"{i}" for i in range(130, 0, -1)]
    assert translator.translate(texts) == [t.upper() if t.strip() else "" for t in texts]
    assert set(server.carried.values()) == {1} and sum(len(r["text"]) for r in server.requests) == 133
    assert translator.translate([]) == [] and translator.translate(["", " "]) == ["", ""]
    assert len(server.requests) == 3


def test_what_is_sent_is_exact_and_tags_and_placeholders_are_kept(server, tmp_path):
    texts = ["  press <b>stop</b> now, {name} %s &amp; <x id='1'/> ", "no\nbreak  is   lost"]
    plain = deepl_client.DeepL(KEY, server.url, tmp_path)
    assert plain.translate(texts) == [t.upper() for t in texts]
    tagged = deepl_client.DeepL(KEY, server.url, tmp_path, tag_handling="xml")
    assert tagged.translate(texts[:1]) == ["  PRESS <b>STOP</b> NOW, {NAME} %S &AMP; <x id='1'/> "]
    assert [r["text"] for r in server.requests] == [texts, texts[:1]]
    assert [r.get("tag_handling") for r in server.requests] == [None, "xml"]


def test_the_plan_says_what_it_costs_and_sends_nothing(server, translator):
    translator.translate(["one", "two"])
    texts = ["one", "three", "", "three", "äöü"] + [f"text {i:02d}" for i in range(60)]
    calls = len(server.calls)
    plan = translator.plan(texts)
    assert len(server.calls) == calls
    assert (plan.texts, plan.cached, plan.characters, plan.requests) == (63, 1, 5 + 3 + 60 * 7, 2)
    assert str(plan) == "DeepL EN to DE: 428 characters to be billed, in 2 requests; 1 of 63 texts are cached"
    before = server.used
    translator.translate(texts)
    assert server.used - before == plan.characters and len(server.requests) == 1 + plan.requests
    assert translator.plan(texts).requests == translator.plan(texts).characters == 0
    assert "the same language, nothing is sent" in str(translator.plan(texts, "de", "de"))


def test_costs_are_said_before_anything_is_billed(server, translator):
    said = []
    server.limit = 100
    translator.translate(["one"], say=lambda line: said.append((line, len(server.requests), server.used)))
    translator.translate(["one"], say=said.append)  # cached: nothing to say
    translator.translate(["four"], say=said.append)
    costs = "DeepL EN to DE: {} characters to be billed, in 1 request; 0 of 1 texts are cached"
    assert said[0] == (costs.format(3) + "; 0 of 100 characters of this period are used", 0, 0)
    assert said[1:] == [costs.format(4)]  # the quota is asked for once
    assert server.calls == ["GET /v2/usage", "POST /v2/translate", "POST /v2/translate"]
    assert translator.left() == "; 7 of 100 characters of this period are used"


def test_the_server_may_come_from_the_environment(server, tmp_path, monkeypatch):
    monkeypatch.setenv(deepl_client.SERVER_VARIABLE, server.url)
    assert deepl_client.DeepL(KEY, cache_dir=tmp_path).translate(["one"]) == ["ONE"]


def test_nothing_is_sent_where_nothing_could_be_stored(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    client = deepl_client.DeepL(KEY, server.url, tmp_path / "file" / "cache")
    refused(lambda: client.translate(["one"]), "cannot be", "cache")
    assert server.requests == []


def test_entries_of_earlier_versions_are_still_known(server, translator, tmp_path):
    """The cache's key of a call without new options has not changed, whatever can be told since."""
    identity = {"text": "one", "source": "EN", "target": "DE", "glossary": None, "formality": None}
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    file = tmp_path / "cache" / key[:2] / f"{key}.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({**identity, "translation": "eins", "billed_characters": 3}, ensure_ascii=False))
    assert translator.translate(["one"]) == ["eins"] and server.calls == []


def test_two_runs_at_once_pay_once(server, tmp_path):
    texts, found = [f"text {i}" for i in range(200)], {}

    def run(number):
        found[number] = deepl_client.DeepL(KEY, server.url, tmp_path / "cache").translate(texts)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [[t.upper() for t in texts]] * 4
    assert set(server.carried.values()) == {1} and len(server.carried) == 200
