"""moejax: speech recognition and translation for people whom one model does not fit.

The public surface is lazy: importing this package starts no JAX backend and costs milliseconds.
"""

__version__ = "0.1.0"

_LAZY = {
    "load": "moejax.recognizer",
    "Recognizer": "moejax.recognizer",
    "Transcript": "moejax.text.transcript",
    "run": "moejax.job.graph",
    "evaluate": "moejax.job.table",
    "study": "moejax.job.study",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module 'moejax' has no attribute {name!r}; it has {', '.join(__all__)}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__():
    return __all__
