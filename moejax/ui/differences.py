"""Two transcripts of one recording beside each other, with the words in which they differ marked."""

import re
from collections.abc import Sequence

from moejax.score import wer
from moejax.text.transcript import Transcript
from moejax.ui.marks import escaped


def compared(first: Transcript, second: Transcript, names: tuple[str, str]) -> str:
    """HTML: how many words differ, and each text with its own marked. Case and punctuation make no difference."""
    texts = [transcript.text.split() for transcript in (first, second)]
    pairs = wer.pairs([_key(word) for word in texts[0]], [_key(word) for word in texts[1]])
    odd = [(i, j) for i, j in pairs if i is None or j is None or _key(texts[0][i]) != _key(texts[1][j])]
    marked = ({i for i, _ in odd}, {j for _, j in odd})
    count = "The two agree in every word." if not odd else f"They differ at {len(odd)} of {len(pairs)} words."
    columns = "".join(
        f"<div><h4>{escaped(name)}</h4><p>{_marked(words, places)}</p></div>"
        for name, words, places in zip(names, texts, marked, strict=True)
    )
    return (
        f'<section class="mj-compared" aria-label="differences"><p role="status">{count}</p>'
        f'<div class="mj-columns">{columns}</div></section>'
    )


def _key(word: str) -> str:
    """A word without what nobody hears."""
    return re.sub(r"[^\w']+", "", word.casefold()) or word


def _marked(words: Sequence[str], places: set[int | None]) -> str:
    found = (f"<mark>{escaped(word)}</mark>" if i in places else escaped(word) for i, word in enumerate(words))
    return " ".join(found) or "<i>no words</i>"
