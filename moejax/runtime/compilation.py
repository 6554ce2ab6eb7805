"""JAX's persistent compilation cache: programs that any process compiled once are read by the next one.

`programs` keeps the large ones whole beside it.
"""

import logging
import os
from pathlib import Path

FOLDER = "~/.cache/moejax/xla"
VARIABLE = "MOEJAX_COMPILATION_CACHE"  # another folder, or "" for none; runs have a config key instead

_mine: list[Path] = []  # the folder that was turned on here


def folder() -> Path | None:
    """Where programs are kept; None where `keep_programs` has not turned that on."""
    import jax

    return _mine[0] if _mine and jax.config.values["jax_compilation_cache_dir"] == str(_mine[0]) else None


def keep_programs(chosen: str | None = None) -> None:
    """Turns the cache on in the `chosen` folder; "" leaves it off, None means $MOEJAX_COMPILATION_CACHE, else `FOLDER`.

    A cache that somebody configured in JAX already is left alone, and one that cannot be written to is a warning.
    """
    import jax  # here: runtime is imported by what must not wait for it

    chosen = os.environ.get(VARIABLE, FOLDER) if chosen is None else chosen
    if not chosen or jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    place = Path(chosen).expanduser()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        logging.getLogger(__name__).warning("compiled programs are not kept: %s", error)
        return
    jax.config.update("jax_compilation_cache_dir", str(place))
    _mine[:] = [place]
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # a dozen quick ones are half a second
