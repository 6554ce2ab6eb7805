"""Translation by DeepL through its official client, with a cache on disk so that no text is paid for twice.

The client repeats a request after no response, 429 and 5xx, and DeepL has no idempotency key: a response lost on
the way may be billed twice. The cache is therefore looked at before every request and written right after every
response, batch by batch, so that an interrupted run goes on where it stopped.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from moejax.mt import deepl_glossary, deepl_languages
from moejax.mt.deepl_cache import Cache
from moejax.mt.deepl_errors import KEY_VARIABLE, TranslationError, told
from moejax.mt.deepl_options import Options

BATCH_TEXTS = 50  # DeepL's limit per request
BATCH_BYTES = 128 * 1024 - 2048  # DeepL's limit of 128 KiB per request body, less what languages and ids take
SERVER_VARIABLE = "DEEPL_SERVER_URL"
PATIENCE = 60.0  # seconds to wait for a response; the client's 10 would have a slow one asked for, and billed, again


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a translation would cost; `source` and `target` are DeepL's codes. Texts are distinct and not blank."""

    source: str
    target: str
    texts: int
    cached: int
    characters: int  # to be billed: Unicode code points of the texts that are not cached
    requests: int

    def __add__(self, other: "Plan") -> "Plan":
        """Of both, one after the other; for texts that they do not share."""
        counts = ("texts", "cached", "characters", "requests")
        return Plan(self.source, self.target, *(getattr(self, name) + getattr(other, name) for name in counts))

    def __str__(self) -> str:
        if self.source == self.target.split("-")[0]:
            return f"DeepL {self.source} to {self.target}: the same language, nothing is sent or billed"
        requests = f"{self.requests} request" + "s" * (self.requests != 1)
        return (
            f"DeepL {self.source} to {self.target}: {self.characters} characters to be billed, in {requests};"
            f" {self.cached} of {self.texts} texts are cached"
        )


class DeepL:
    """DeepL text translation, cached by content in `cache_dir`.

    `auth_key` None or "" means the environment's DEEPL_AUTH_KEY; it is asked for only when a text is not cached, so
    a cached run repeats without a key. `server_url` None or "" means the environment's DEEPL_SERVER_URL, as for DeepL's
    own command; without it the key decides (free keys end in ":fx").
    `options`, `glossary` and `formality` among them, are those of `deepl_options.Options`.
    """

    name = "deepl"

    def __init__(
        self,
        auth_key: str | None = None,
        server_url: str | None = None,
        cache_dir: str | os.PathLike = "deepl_cache",
        glossary: str | os.PathLike | Mapping[str, str] | None = None,
        formality: str | None = None,
        **options,
    ):
        """Errors: `TranslationError` for an option's value or a glossary file."""
        self._auth_key = auth_key
        self._server_url = server_url or os.environ.get(SERVER_VARIABLE) or None
        self._cache = Cache(cache_dir)
        self._options = Options(glossary, formality, **options)
        self._said = False  # whether `say` was told of the quota: once is enough
        self._glossaries: dict[tuple[str, str], str] = {}  # ids of the entries, as far as they were asked for

    def translate(
        self,
        texts: Sequence[str],
        source: str = "EN",
        target: str = "DE",
        progress: Callable[[int, int], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> list[str]:
        """The translations in the order of `texts`; a blank text becomes "" unsent, a repeated one is sent once.

        Languages are codes, DeepL's or Whisper's; texts come back as they are where both are the same. `progress(done,
        total)` is called with counts of distinct texts after the cache was read and after each batch, `say(line)` with
        the costs before something is billed. Raises `TranslationError` (a language or an option that DeepL lacks, key
        missing or refused, quota used up, no connection, text too long).
        """
        source, target = self.check(source, target)
        if deepl_languages.same(source, target):
            return list(texts)
        wanted, known = self._known(texts, source, target)
        batches = self._batches(wanted, known)  # a text that is too long stops the run before anything is billed
        if progress:
            progress(len(known), len(wanted))
        if batches:
            client = self._connect()
            try:
                if say:
                    say(f"{_plan(wanted, known, batches, source, target)}{'' if self._said else _left(client)}")
                    self._said = True
                self._cache.ready()
                more = self._options.request(self._glossary(client, source, target))
                for batch in batches:
                    known.update(self._request(client, batch, source, target, more))
                    if progress:
                        progress(len(known), len(wanted))
            finally:
                client.close()
        return [known.get(t, "") for t in texts]

    def plan(self, texts: Sequence[str], source: str = "EN", target: str = "DE") -> Plan:
        """What `translate` would cost. Nothing is sent, no key is needed. Errors: as `translate`, where they show."""
        source, target = self.check(source, target)
        if deepl_languages.same(source, target):
            return Plan(source, target, 0, 0, 0, 0)
        wanted, known = self._known(texts, source, target)
        return _plan(wanted, known, self._batches(wanted, known), source, target)

    def left(self) -> str:
        """Such as "; 1200 of 500000 characters of this period are used", "" without a key. Bills nothing. Errors:
        `TranslationError` for a key that is refused.
        """
        if not self._key():
            return ""
        client = self._connect()
        try:
            return _left(client)
        finally:
            client.close()

    def check(self, source: str, target: str) -> tuple[str, str]:
        """DeepL's codes of both. Errors: `TranslationError` for a language or an option that DeepL lacks for it."""
        source, target = deepl_languages.pair(source, target)
        self._options.check(target)
        return source, target

    def _known(self, texts, source, target) -> tuple[list[str], dict[str, str]]:
        """Distinct texts with anything in them, and the translations of those that are cached."""
        wanted = list(dict.fromkeys(t for t in texts if t.strip()))
        found = ((t, self._cache.read(self._identity(t, source, target))) for t in wanted)
        return wanted, {t: hit for t, hit in found if hit is not None}

    def _batches(self, wanted, known) -> list[list[str]]:
        instructions = self._options.custom_instructions
        room = BATCH_BYTES - (len(json.dumps(instructions)) if instructions else 0)
        return list(_batches([t for t in wanted if t not in known], room))

    def _key(self) -> str:
        return (self._auth_key or os.environ.get(KEY_VARIABLE, "")).strip()

    def _connect(self):
        auth_key = self._key()
        if not auth_key:
            raise TranslationError(f"no DeepL key: set {KEY_VARIABLE}, or choose another translator in the config")
        if not (auth_key.isascii() and auth_key.isprintable()):  # else the client's error would show it
            raise TranslationError(
                f"the key in {KEY_VARIABLE} has a line break or a letter that no key has: copy it again"
            )
        import deepl

        deepl.http_client.min_connection_timeout = max(deepl.http_client.min_connection_timeout, PATIENCE)
        return deepl.DeepLClient(auth_key, server_url=self._server_url, send_platform_info=False)

    def _glossary(self, client, source: str, target: str) -> str | None:
        """The account's id of the entries, uploaded where it has none."""
        entries = self._options.entries
        if entries and (source, target) not in self._glossaries:
            self._glossaries[source, target] = deepl_glossary.upload(client, entries, source, target)
        return self._glossaries.get((source, target))

    def _request(self, client, batch: list[str], source: str, target: str, more: dict) -> dict[str, str]:
        """Translates one batch and stores every text of it before anything else can fail."""
        with self._cache.alone():
            identities = {text: self._identity(text, source, target) for text in batch}
            found = {text: hit for text in batch if (hit := self._cache.read(identities[text])) is not None}
            batch = [text for text in batch if text not in found]  # another run may have stored the rest meanwhile
            if not batch:
                return found
            with told(f"translate {len(batch)} texts"):
                results = client.translate_text(batch, source_lang=source, target_lang=target, **more)
            if len(results) != len(batch):
                raise TranslationError(f"DeepL answered {len(results)} translations for {len(batch)} texts")
            answers = [(r.text, r.billed_characters) for r in results]
            stored = [dict(translation=answer, billed_characters=billed) for answer, billed in answers]
            self._cache.write([(identities[t], answer) for t, answer in zip(batch, stored, strict=True)])
        return found | {text: answer for text, (answer, _) in zip(batch, answers, strict=True)}

    def _identity(self, text: str, source: str, target: str) -> dict:
        return {"text": text, "source": source, "target": target} | self._options.identity()


def _plan(wanted, known, batches, source, target) -> Plan:
    characters = sum(len(text) for batch in batches for text in batch)
    return Plan(source, target, len(wanted), len(known), characters, len(batches))


def _left(client) -> str:
    try:
        with told("say what is left of its quota"):
            used = client.get_usage().character
    except TranslationError as error:
        if type(error.__cause__).__name__ in ("AuthorizationException", "ConnectionException"):
            raise  # no request would fare better
        return ""
    return f"; {used.count} of {used.limit} characters of this period are used" if used.valid else ""


def _batches(texts: list[str], room: int) -> Iterator[list[str]]:
    """Consecutive batches within both limits; sizes are those of the JSON that the client sends (escaped, so ASCII)."""
    batch, size = [], 0
    for text in texts:
        length = len(json.dumps(text)) + 2
        if length > room:
            raise TranslationError(f"a text of {length} bytes exceeds DeepL's {room}, split it: {text[:40]!r}")
        if batch and (len(batch) == BATCH_TEXTS or size + length > room):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += length
    if batch:
        yield batch
