"""Translation on this machine by a folder that CTranslate2 runs: OPUS-MT, NLLB or M2M100, each with its SentencePiece.

Such folders come from `ct2-transformers-converter --model Helsinki-NLP/opus-mt-en-de --output_dir D --copy_files
source.spm target.spm` (NLLB: sentencepiece.bpe.model; M2M100 the same). The languages of OPUS-MT are those that its
folder was trained for; the others are told which to write.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from moejax.errors import BadValue, NotThere

# What NLLB calls the languages that Whisper writes by two letters and many translate into (FLORES-200 codes).
NLLB = {
    **{"ar": "arb_Arab", "bg": "bul_Cyrl", "ca": "cat_Latn", "cs": "ces_Latn", "da": "dan_Latn", "de": "deu_Latn"},
    **{"el": "ell_Grek", "en": "eng_Latn", "es": "spa_Latn", "et": "est_Latn", "fa": "pes_Arab", "fi": "fin_Latn"},
    **{"fr": "fra_Latn", "he": "heb_Hebr", "hi": "hin_Deva", "hr": "hrv_Latn", "hu": "hun_Latn", "id": "ind_Latn"},
    **{"it": "ita_Latn", "ja": "jpn_Jpan", "ko": "kor_Hang", "lt": "lit_Latn", "lv": "lvs_Latn", "nl": "nld_Latn"},
    **{"no": "nob_Latn", "pl": "pol_Latn", "pt": "por_Latn", "ro": "ron_Latn", "ru": "rus_Cyrl", "sk": "slk_Latn"},
    **{"sl": "slv_Latn", "sr": "srp_Cyrl", "sv": "swe_Latn", "sw": "swh_Latn", "ta": "tam_Taml", "th": "tha_Thai"},
    **{"tr": "tur_Latn", "uk": "ukr_Cyrl", "ur": "urd_Arab", "vi": "vie_Latn", "zh": "zho_Hans"},
}
BATCH, BEAMS = 16, 4  # texts at a time; hypotheses
LONGEST, MOST = 480, 500  # pieces of one text that a model reads, and that it writes: OPUS-MT has room for 512


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a kind of model is spoken to. `before` and `after`: pieces around the text; `first`: of what it writes."""

    kind: str
    source: Path
    target: Path
    before: tuple[str, ...]
    first: tuple[str, ...]

    def tokens(self, pieces: Sequence[str]) -> list[str]:
        """What the encoder reads."""
        return [*self.before, *pieces, "</s>"]


class CTranslate2:
    """The translator of one folder for one pair of languages.

    Errors: NotThere for a folder that is none, BadValue for one whose kind or languages are not known, and where the
    packages of the extra `translators` are missing.
    """

    name = "ctranslate2"

    def __init__(self, folder: str | Path, source: str = "en", target: str = "de", *, device: str = "auto"):
        place = Path(folder).expanduser()
        self.layout = layout(place, source.lower(), target.lower())
        try:
            import ctranslate2  # pyright: ignore[reportMissingImports]  # an extra
            import sentencepiece  # pyright: ignore[reportMissingImports]  # an extra
        except ModuleNotFoundError as error:
            raise BadValue(f"translating with {place} needs {error.name}: pip install 'moejax[translators]'") from error
        self._pieces = {file: sentencepiece.SentencePieceProcessor(str(file)) for file in self._files()}
        try:
            self._model: Any = ctranslate2.Translator(str(place), device=device)
        except (RuntimeError, ValueError) as error:
            raise BadValue(f"{place} cannot be opened by ctranslate2: {' '.join(str(error).split())[:200]}") from error

    def _files(self) -> set[Path]:
        return {self.layout.source, self.layout.target}

    def translate(
        self,
        texts: Sequence[str],
        source: str = "",
        target: str = "",
        progress: Callable[[int, int], None] | None = None,
    ) -> list[str]:
        """The translations in the order of `texts`; a blank text becomes "", a repeated one is translated once.

        `source` and `target` are those of the folder. Errors: BadValue for a text that is too long for the model.
        """
        del source, target
        wanted = list(dict.fromkeys(text for text in texts if text.strip()))
        read, write = (self._pieces[file] for file in (self.layout.source, self.layout.target))
        known: dict[str, str] = {}
        for start in range(0, len(wanted), BATCH):
            some = wanted[start : start + BATCH]
            pieces = [self.layout.tokens(read.encode(text, out_type=str)) for text in some]
            for text, own in zip(some, pieces, strict=True):
                if len(own) > LONGEST:
                    raise BadValue(f"a text of {len(own)} pieces, of {LONGEST} at most; cut it: {text[:40]!r}")
            first = [list(self.layout.first)] * len(some) if self.layout.first else None
            found = self._model.translate_batch(
                pieces, target_prefix=first, beam_size=BEAMS, max_decoding_length=MOST, disable_unk=True
            )
            for text, one in zip(some, found, strict=True):
                known[text] = write.decode(one.hypotheses[0][len(self.layout.first) :]).strip()
            if progress:
                progress(len(known), len(wanted))
        return [known.get(text, "") for text in texts]


def layout(folder: Path, source: str, target: str) -> Layout:
    """How the model of a folder is spoken to. Errors: as `CTranslate2`."""
    if not (folder / "model.bin").is_file():
        raise NotThere(f"{folder} has no model.bin: it is no folder that ct2-transformers-converter writes")
    single = (folder / "source.spm", folder / "target.spm")
    if all(file.is_file() for file in single):
        return Layout("opus-mt", *single, _asked_of_opus(folder, target), ())
    shared = folder / "sentencepiece.bpe.model"
    if not shared.is_file():
        raise NotThere(
            f"{folder} has neither source.spm, target.spm (OPUS-MT) nor sentencepiece.bpe.model (NLLB, M2M100)"
        )
    words = _vocabulary(folder)
    for kind, codes in (
        ("nllb", [NLLB.get(code, code) for code in (source, target)]),
        ("m2m100", [f"__{code}__" for code in (source, target)]),
    ):
        if codes[0] in words and codes[1] in words:
            return Layout(kind, shared, shared, (codes[0],), (codes[1],))
    if not {"eng_Latn", "__en__"} & words:
        raise BadValue(f"{folder} is neither NLLB nor M2M100: its vocabulary has neither eng_Latn nor __en__")
    raise BadValue(f"{folder} does not translate {source!r} into {target!r}: its vocabulary lacks one of them")


def digest(folder: str | Path, source: str, target: str) -> str:
    """12 hex digits of the model and its pieces. Errors: as `layout`."""
    place, found = Path(folder).expanduser(), hashlib.sha256()
    spoken = layout(place, source.lower(), target.lower())
    for file in (place / "model.bin", *sorted({spoken.source, spoken.target})):
        with open(file, "rb") as opened:
            found.update(hashlib.file_digest(opened, "sha256").digest())
    return found.hexdigest()[:12]


def _asked_of_opus(folder: Path, target: str) -> tuple[str, ...]:
    """Models into several languages are told which by a piece such as >>deu<<; others have none."""
    languages = sorted(word for word in _vocabulary(folder) if word.startswith(">>") and word.endswith("<<"))
    if not languages:
        return ()
    three = NLLB.get(target, target).split("_")[0]
    wanted = next((word for word in languages if word.strip("<>").split("_")[0] in (target, three)), None)
    if wanted is None:
        known = ", ".join(word.strip("<>") for word in languages[:20])
        raise BadValue(f"{folder} does not write {target!r}; it writes {known}")
    return (wanted,)


def _vocabulary(folder: Path) -> frozenset[str]:
    """Every piece that the model knows."""
    for name in ("shared_vocabulary", "source_vocabulary"):
        if (folder / f"{name}.json").is_file():
            return frozenset(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))
        if (folder / f"{name}.txt").is_file():
            return frozenset((folder / f"{name}.txt").read_text(encoding="utf-8").split("\n"))
    raise NotThere(f"{folder} has no vocabulary (shared_vocabulary.json or source_vocabulary.json)")
