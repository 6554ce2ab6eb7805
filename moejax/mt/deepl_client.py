"""Translation by DeepL through its official client, with a cache on disk so that no text is paid for twice.

The client repeats a request after no response, 429 and 5xx, and DeepL has no idempotency key: a response lost on
the way may be billed twice. The cache is therefore looked at before every request and written right after every
response, batch by batch, so that an interrupted run goes on where it stopped.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from moejax.errors import BadValue
from moejax.runtime.files import replacing

BATCH_TEXTS = 50  # DeepL's limit per request
BATCH_BYTES = 128 * 1024 - 2048  # DeepL's limit of 128 KiB per request body, less what the options take
KEY_VARIABLE = "DEEPL_AUTH_KEY"


class TranslationError(BadValue):
    """DeepL did not translate: the message says in one line why, and what to do."""


class DeepL:
    """DeepL text translation, cached by content in `cache_dir`.

    `auth_key` None or "" means the environment's DEEPL_AUTH_KEY; it is asked for only when a text is not cached, so
    a cached run repeats without a key. `server_url` None lets the client choose by the key (free keys end in ":fx").
    `glossary` is a glossary id; `formality` is one of less, more, prefer_less, prefer_more, default.
    """

    name = "deepl"

    def __init__(
        self,
        auth_key: str | None = None,
        server_url: str | None = None,
        cache_dir: str | os.PathLike = "deepl_cache",
        glossary: str | None = None,
        formality: str | None = None,
    ):
        self._auth_key = auth_key
        self._server_url = server_url or None
        self._cache_dir = Path(cache_dir)
        self._options = {"glossary": glossary or None, "formality": formality or None}

    def translate(
        self,
        texts: Sequence[str],
        source: str = "EN",
        target: str = "DE",
        progress: Callable[[int, int], None] | None = None,
    ) -> list[str]:
        """The translations in the order of `texts`; a blank text becomes "" unsent, a repeated one is sent once.

        `progress(done, total)` is called with counts of distinct texts after the cache was read and after each batch.
        Raises `TranslationError` (key missing or refused, quota used up, no connection, text too long).
        """
        source, target = source.upper(), target.upper()
        wanted = list(dict.fromkeys(t for t in texts if t.strip()))
        known = {t: hit for t in wanted if (hit := self._read(t, source, target)) is not None}
        missing = [t for t in wanted if t not in known]
        if progress:
            progress(len(known), len(wanted))
        if missing:
            batches = list(_batches(missing))  # a text that is too long stops the run before anything is billed
            client = self._connect()
            try:
                for batch in batches:
                    known.update(self._request(client, batch, source, target))
                    if progress:
                        progress(len(known), len(wanted))
            finally:
                client.close()
        return [known.get(t, "") for t in texts]

    def _connect(self):
        auth_key = self._auth_key or os.environ.get(KEY_VARIABLE, "")
        if not auth_key:
            raise TranslationError(f"no DeepL key: set {KEY_VARIABLE}, or choose another translator in the config")
        import deepl

        return deepl.DeepLClient(auth_key, server_url=self._server_url, send_platform_info=False)

    def _request(self, client, batch: list[str], source: str, target: str) -> dict[str, str]:
        """Translates one batch and stores every text of it before anything else can fail."""
        import deepl

        try:
            results = client.translate_text(batch, source_lang=source, target_lang=target, **self._options)
        except deepl.AuthorizationException as e:
            raise TranslationError(f"DeepL refused the key in {KEY_VARIABLE} (403): check it and its plan") from e
        except deepl.QuotaExceededException as e:
            raise TranslationError("DeepL quota used up (456): wait for the next period; what is done is cached") from e
        except deepl.DeepLException as e:
            raise TranslationError(f"DeepL did not translate {len(batch)} texts: {_one_line(e)}") from e
        if len(results) != len(batch):
            raise TranslationError(f"DeepL answered {len(results)} translations for {len(batch)} texts")
        for text, result in zip(batch, results, strict=True):
            self._write(text, source, target, result)
        return {text: result.text for text, result in zip(batch, results, strict=True)}

    def _file(self, text: str, source: str, target: str) -> Path:
        identity = {"text": text, "source": source, "target": target} | self._options
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        return self._cache_dir / key[:2] / f"{key}.json"

    def _read(self, text: str, source: str, target: str) -> str | None:
        path = self._file(text, source, target)
        if not path.exists():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))["translation"]
        except (json.JSONDecodeError, KeyError) as e:
            raise TranslationError(f"unreadable cache file {path}: delete it to translate its text again") from e

    def _write(self, text: str, source: str, target: str, result) -> None:
        path = self._file(text, source, target)
        entry = {"text": text, "translation": result.text, "source": source, "target": target} | self._options
        entry["billed_characters"] = result.billed_characters
        with replacing(path) as partial:
            partial.write_text(json.dumps(entry, ensure_ascii=False), encoding="utf-8")


def _batches(texts: list[str]) -> Iterator[list[str]]:
    """Consecutive batches within both limits; sizes are those of the JSON that the client sends (escaped, so ASCII)."""
    batch, size = [], 0
    for text in texts:
        length = len(json.dumps(text)) + 2
        if length > BATCH_BYTES:
            raise TranslationError(f"a text of {length} bytes exceeds DeepL's {BATCH_BYTES}, split it: {text[:40]!r}")
        if batch and (len(batch) == BATCH_TEXTS or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += length
    if batch:
        yield batch


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
