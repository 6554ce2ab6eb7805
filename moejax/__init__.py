"""moejax: speech recognition and translation for people whom one model does not fit.

The public surface is lazy: importing this package starts no JAX backend and costs milliseconds.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moejax.job.graph import run
    from moejax.job.study import study
    from moejax.job.table import evaluate
    from moejax.loading import load
    from moejax.recognizer import Recognizer
    from moejax.text.transcript import Transcript

__version__ = "0.1.0"

_LAZY = {
    "load": "moejax.loading",
    "Recognizer": "moejax.recognizer",
    "Transcript": "moejax.text.transcript",
    "run": "moejax.job.graph",
    "evaluate": "moejax.job.table",
    "study": "moejax.job.study",
}

__all__ = ["Recognizer", "Transcript", "__version__", "evaluate", "load", "run", "study"]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'moejax' has no attribute {name!r}; it has {', '.join(__all__)}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__
