"""What DeepL's refusals mean, each in one line that says what to do."""

import contextlib
from collections.abc import Iterator

from moejax.errors import BadValue

KEY_VARIABLE = "DEEPL_AUTH_KEY"
KEPT = "what is done is cached, so the same command goes on"


class TranslationError(BadValue):
    """DeepL did not translate: the message says in one line why, and what to do."""


@contextlib.contextmanager
def told(doing: str) -> Iterator[None]:
    """Turns whatever the official client raises into a `TranslationError`; `doing` such as "translate 3 texts"."""
    import deepl

    try:
        yield
    except deepl.DeepLException as error:
        raise TranslationError(_meaning(error, doing)) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # the client reads fields without looking
        if isinstance(error, TranslationError):
            raise
        raise TranslationError(
            f"DeepL did not {doing}: the answer is not DeepL's ({type(error).__name__}: {one_line(error)}); check the"
            " server's address"
        ) from error


def _meaning(error, doing: str) -> str:
    import deepl

    status = error.http_status_code
    if isinstance(error, deepl.AuthorizationException):
        return f"DeepL refused the key in {KEY_VARIABLE} (403): check it and its plan"
    if isinstance(error, deepl.QuotaExceededException):
        if "glossary" in doing:
            return f"DeepL did not {doing}: the account's limit on glossaries is reached (456); delete one of them"
        return f"DeepL quota used up (456): wait for the next period or raise the limit; {KEPT}"
    if status in (429, 529):
        return f"DeepL did not {doing}: too many requests ({status}), after all retries; wait a minute, {KEPT}"
    if status == 413:
        return f"DeepL did not {doing}: the request is too large (413); split the longest text"
    if isinstance(error, deepl.ConnectionException):
        return f"DeepL did not {doing}: no answer, after all retries ({one_line(error)}); check the connection, {KEPT}"
    if status is not None and status >= 500:
        return f"DeepL did not {doing}: its server is out of order ({status}), after all retries; try later, {KEPT}"
    if status == 404:
        return f"DeepL did not {doing}: {one_line(error)} (404); check the ids of glossary, style and memory"
    return f"DeepL did not {doing}: {one_line(error)}"


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
