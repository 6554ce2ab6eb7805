"""The DeepL back end against a local server that speaks DeepL's v2 protocol over a real socket."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from moejax import mt
from moejax.mt import deepl_client

KEY = "key-for-the-local-server"


class Server:
    """Answers /v2/translate in upper case; `script` lists what to do with the next requests first.

    A step is a status code, "lost" (carried out, but the connection is closed without an answer) or "short" (one
    translation too few).
    """

    def __init__(self):
        self.script: list[int | str] = []
        self.requests: list[dict] = []
        self.sizes: list[int] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                server.answer(self)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        request = json.loads(body)
        step = self.script.pop(0) if self.script else 200
        if handler.headers["Authorization"] != f"DeepL-Auth-Key {KEY}":
            step = 403
        if handler.path != "/v2/translate":
            step = 404
        self.requests.append(request)
        self.sizes.append(len(body))
        if step == "lost":
            handler.close_connection = True
            return
        done = [
            {"text": t.upper(), "detected_source_language": request["source_lang"], "billed_characters": len(t)}
            for t in request["text"]
        ]
        if step == "short":
            done, step = done[1:], 200
        answer = {"translations": done} if step == 200 else {"message": "as the script says"}
        payload = json.dumps(answer).encode()
        handler.send_response(step)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(payload)))
        handler.end_headers()
        handler.wfile.write(payload)

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("deepl.http_client._BackoffTimer.BACKOFF_INITIAL", 0.01)
    monkeypatch.delenv(deepl_client.KEY_VARIABLE, raising=False)
    running = Server()
    yield running
    running.close()


@pytest.fixture
def translator(server, tmp_path):
    return deepl_client.DeepL(KEY, server.url, tmp_path / "cache")


def test_translates_in_order_with_languages_and_options(server, tmp_path):
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


@pytest.mark.parametrize("trouble", [429, 503, "lost"])
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
