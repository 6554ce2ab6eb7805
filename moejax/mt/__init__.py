"""Text translators, each with `.translate(texts, source="EN", target="DE", progress=None) -> list[str]`.

`TRANSLATORS` names them as "module:attribute", so that asking for one imports only that one.
"""

import importlib
from collections.abc import Callable
from typing import Any

from moejax.errors import BadValue

TRANSLATORS: dict[str, str] = {
    "deepl": "moejax.mt.deepl_client:DeepL",
    "ctranslate2": "moejax.mt.ctranslate2_folder:CTranslate2",
}


def get(name: str) -> Callable[..., Any]:
    """The translator class of this name. An unknown name raises and lists the known ones."""
    if name not in TRANSLATORS:
        raise BadValue(f"unknown translator {name!r}; known: {', '.join(TRANSLATORS)}")
    module, attribute = TRANSLATORS[name].split(":")
    return getattr(importlib.import_module(module), attribute)
