"""Systems that translate speech themselves, without a transcript between: rows of the table of translations."""

from collections.abc import Iterator

import numpy as np

from moejax.work.context import Context


def translations(context: Context, rows: np.ndarray) -> Iterator[tuple[str, dict[str, str]]]:
    """(system, {utterance id: translated text}) of every end-to-end system that the workdir has trained, over these
    rows of the manifest. No stage trains one yet, so there is none.
    """
    del context, rows
    yield from ()
