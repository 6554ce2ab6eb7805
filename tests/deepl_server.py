"""A local server that speaks DeepL's protocol over a real socket: text (v2), glossaries (v3), usage and errors.

It translates into upper case, glossary terms as the glossary says, and counts what it has carried out: what DeepL would
bill. It is strict: what DeepL refuses it refuses, with DeepL's status.
"""

import collections
import json
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "key-for-the-local-server"
TARGETS = "AR DE DE-CH EN-GB EN-US ES ES-419 FR IT JA KO NB NL PL PT-BR PT-PT RU SV UK ZH ZH-HANS ZH-HANT".split()
SOURCES = "AR DE EN ES FR IT JA KO NB NL PL PT RU SV UK ZH".split()
FORMAL = "DE ES ES-419 FR IT JA NL PL PT-BR PT-PT RU".split()
LARGEST = 128 * 1024  # bytes of a request


class Refusal(Exception):
    """(status, message) as DeepL answers."""


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # who asked is gone
            super().handle_error(request, client_address)


class Server:
    """`script` lists what to do with the next translation requests first: a status code, "lost" (carried out, but the
    connection is closed without an answer), "late" (answered after a second), "short" (one translation too few), "html"
    (a page that is no JSON, with status 200).

    `limit` is the quota in characters. `moments`, if set, is called with "come", "carried out" and "answered" and the
    texts of each translation request.
    """

    def __init__(self):
        self.script: list[int | str] = []
        self.requests: list[dict] = []  # bodies of translation requests
        self.sizes: list[int] = []  # their bytes
        self.calls: list[str] = []  # "METHOD /path" of everything
        self.carried: collections.Counter[str] = collections.Counter()  # how often each text was carried out
        self.used, self.limit = 0, 500_000
        self.glossaries: dict[str, dict] = {}  # {id: as DeepL describes it, with "entries" of its one dictionary}
        self.most_glossaries = 1000
        self.moments: Callable[[str, list[str]], None] | None = None
        self.busy = 0  # requests that are being answered
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                server.answer(self)

            do_GET = do_POST

            def log_message(self, *args):
                pass

        self.http = _Quiet(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    def rest(self) -> None:
        """Returns when no request is being answered any more."""
        time.sleep(0.01)  # what a killed process has sent may still be on its way
        while self.busy:
            time.sleep(0.001)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.busy += 1
        try:
            self._answer(handler)
        finally:
            with self._lock:
                self.busy -= 1

    def _answer(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        call, texts = f"{handler.command} {handler.path}", []
        self.calls.append(call)
        if call == "POST /v2/translate":
            self.requests.append(json.loads(body))
            self.sizes.append(len(body))
        try:
            if handler.headers["Authorization"] != f"DeepL-Auth-Key {KEY}":
                raise Refusal(403, "Forbidden")
            if call == "POST /v2/translate":
                self._tell("come", texts := json.loads(body).get("text"))
                answer = self._translate(body)
                self._tell("carried out", texts)
            elif call == "GET /v2/usage":
                answer = {"character_count": self.used, "character_limit": self.limit}
            elif call == "GET /v3/glossaries":
                answer = {"glossaries": [_told(found) for found in self.glossaries.values()]}
            elif call == "POST /v3/glossaries":
                answer = self._glossary(json.loads(body))
            else:
                raise Refusal(404, "Not found")
            status = 201 if call == "POST /v3/glossaries" else 200
        except Refusal as refusal:
            status, message = refusal.args
            answer = {"message": message}
        if answer is None:
            handler.close_connection = True
            return
        payload = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(payload)))
        handler.end_headers()
        handler.wfile.write(payload)
        if texts:
            self._tell("answered", texts)

    def _tell(self, moment, texts):
        if self.moments:
            self.moments(moment, texts)

    def _translate(self, body):
        request = json.loads(body)
        step = self.script.pop(0) if self.script else 200
        if isinstance(step, int) and step != 200:
            raise Refusal(step, "as the script says")
        if step == "html":
            return b"<html>Welcome to the hotel's network</html>"
        self._check(request, len(body))
        with self._lock:
            characters = sum(map(len, request["text"]))
            if self.used + characters > self.limit:
                raise Refusal(456, "Quota Exceeded")
            self.used += characters
            self.carried.update(request["text"])
        if step == "lost":
            return None
        if step == "late":
            time.sleep(1.0)
        entries = self.glossaries.get(request.get("glossary_id"), {}).get("entries", {})
        done = [
            {
                "detected_source_language": request["source_lang"],
                "text": _upper(text, entries, request.get("tag_handling")),
                "billed_characters": len(text),
            }
            for text in request["text"]
        ]
        return {"translations": done[1:] if step == "short" else done}

    def _check(self, request, size):
        if size > LARGEST:
            raise Refusal(413, "Request Entity Too Large")
        if not 0 < len(request["text"]) <= 50 or any(not text.strip() for text in request["text"]):
            raise Refusal(400, "Value for 'text' not supported.")
        source, target = request["source_lang"], request["target_lang"]
        if source not in SOURCES or target not in TARGETS:
            raise Refusal(400, "Value for 'source_lang' or 'target_lang' not supported.")
        if request.get("formality") in ("less", "more") and target not in FORMAL:
            raise Refusal(400, "'formality' is not supported for given 'target_lang'.")
        if glossary := request.get("glossary_id"):
            if glossary not in self.glossaries:
                raise Refusal(404, "Glossary not found")
            pairs = [(d["source_lang"], d["target_lang"]) for d in self.glossaries[glossary]["dictionaries"]]
            if (source.lower(), target.split("-")[0].lower()) not in pairs:
                raise Refusal(400, "No dictionary found for language pair")

    def _glossary(self, request):
        if len(self.glossaries) >= self.most_glossaries:
            raise Refusal(456, "Quota Exceeded")
        (dictionary,) = request["dictionaries"]
        if dictionary["source_lang"] not in SOURCES or dictionary["target_lang"] not in SOURCES:
            raise Refusal(400, "Unsupported glossary source and target language pair")
        assert dictionary["entries_format"] == "tsv" and request["name"]
        entries = dict(line.split("\t") for line in dictionary["entries"].split("\n"))
        return _told(self.own(request["name"], dictionary["source_lang"], dictionary["target_lang"], entries))

    def own(self, name: str, source: str, target: str, entries: dict[str, str], id: str | None = None) -> dict:
        """Puts a glossary on the account."""
        made = {
            "glossary_id": id or str(uuid.uuid4()),
            "name": name,
            "dictionaries": [
                {"source_lang": source.lower(), "target_lang": target.lower(), "entry_count": len(entries)}
            ],
            "creation_time": "2026-04-30T12:00:00.000000Z",
            "entries": entries,
        }
        self.glossaries[made["glossary_id"]] = made
        return made


def _told(glossary):
    return {name: value for name, value in glossary.items() if name != "entries"}


def _upper(text, entries, tags):
    """Tags stay as they are where the request says that there are some."""
    parts = re.split(r"(<[^>]*>)", text) if tags else [text]
    said = [part if tags and part.startswith("<") else part.upper() for part in parts]
    for term, other in entries.items():
        said = [part.replace(term.upper(), other) for part in said]
    return "".join(said)
