"""Transcripts that do not fit the decoder: found by the stage that looks at the corpus, not by a batch hours later."""

from collections.abc import Callable, Sequence

from moejax.convert import whisper_folder
from moejax.text.tokenizer import Tokenizer
from moejax.training import base

_FEWEST = 64  # positions of the smallest decoder that anybody uses


def decides(cfg, texts: Sequence[str]) -> list[str]:
    """What, beside the corpus, decides which texts are skipped: nothing where all are short, whatever the vocabulary.

    So the manifest of a corpus without long texts does not depend on the model.
    """
    limit = _limit(cfg, texts)
    return [] if limit is None else [cfg.model.pretrained, cfg.model.vocabulary, str(limit)]


def room(cfg, texts: Sequence[str]) -> Callable[[str], str | None]:
    """A function text -> why it does not fit the decoder, or None. A vocabulary that is yet to be learnt from the
    corpus refuses nothing here (the stage base does, once it is learnt).
    """
    limit = _limit(cfg, texts)
    if limit is None:
        return lambda text: None
    published = base.pretrained(cfg)
    tokenizer = Tokenizer.from_hf_folder(published) if published else Tokenizer.published(cfg.model.vocabulary)
    prefix = len(tokenizer.prefix(cfg.data.language, "transcribe"))

    def why(text: str) -> str | None:
        needs = prefix + len(tokenizer.encode(" ".join(text.split()))) if _may_not_fit(text, limit) else 0
        return f"the text has {needs} tokens, the model takes {limit}" if needs > limit else None

    return why


def _limit(cfg, texts) -> int | None:
    """Positions of the decoder; None where every text fits, or where its vocabulary is not known yet."""
    model = cfg.get("model")
    if model is None or not (model.pretrained or model.vocabulary):
        return None
    if not any(_may_not_fit(text, _FEWEST) for text in texts):
        return None  # without opening the model
    published = base.pretrained(cfg)
    config = whisper_folder.load_config(published) if published else base.from_scratch(cfg)
    limit = config.max_target_positions
    return limit if any(_may_not_fit(text, limit) for text in texts) else None


def _may_not_fit(text: str, limit: int) -> bool:
    """Whether a text could be too long for so many positions: no token is shorter than a byte, no prefix than 4."""
    return len(text.encode()) + 4 > limit
