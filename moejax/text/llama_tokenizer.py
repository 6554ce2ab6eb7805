"""The tokenizer of a LLaMA in Hugging Face's layout: tokenizer.json, and which tokens begin and end a text."""

import json
import pathlib
from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from moejax.errors import BadValue, NotThere

UNKNOWN, BOS, EOS = "<unk>", "<s>", "</s>"


class LlamaTokenizer:
    """Texts to ids without special tokens, and back. `bos`, `eot`: ids that begin a sequence and end an answer."""

    def __init__(self, backend: tokenizers.Tokenizer, *, bos: str = BOS, eos: str = EOS):
        self._backend = backend
        self.vocab_size = backend.get_vocab_size(with_added_tokens=True)
        self.bos, self.eot = (self._special(name) for name in (bos, eos))

    @classmethod
    def from_folder(cls, folder: str | pathlib.Path) -> "LlamaTokenizer":
        """Of a model's folder. Errors: NotThere without tokenizer.json, BadValue naming the file."""
        folder = pathlib.Path(folder)
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise NotThere(
                f"{file}: there is no such file; a folder with tokenizer.model alone is written anew by transformers "
                "(AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER))"
            )
        try:
            backend = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing more special
            raise BadValue(f"{file}: not a tokenizer ({' '.join(str(error).split())[:200]})") from error
        said = folder / "tokenizer_config.json"
        try:
            config = json.loads(said.read_text(encoding="utf-8")) if said.is_file() else {}
            names = [config.get(name) or other for name, other in (("bos_token", BOS), ("eos_token", EOS))]
            bos, eos = (str(name["content"] if isinstance(name, dict) else name) for name in names)
        except (ValueError, AttributeError, KeyError) as error:
            raise BadValue(f"{said}: no readable object of settings ({type(error).__name__})") from error
        try:
            return cls(backend, bos=bos, eos=eos)
        except BadValue as error:
            raise BadValue(f"{file}: {error}") from None

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "LlamaTokenizer":
        """BPE learnt from texts, of at most `vocab_size` tokens; the same texts give the same ids.

        A word carries the space before it, at the beginning of a text, too, as in the published vocabularies, so that
        texts that are joined by a space are the same ids as one after the other. Punctuation and line breaks stand
        alone; a character that the texts do not have is `<unk>`. Errors: BadValue for a vocabulary without room for
        the characters.
        """
        texts = list(texts)
        least = 3 + len({character for text in texts for character in text if not character.isspace()})
        if vocab_size < least:
            raise BadValue(f"a vocabulary of {vocab_size} tokens; these texts need {least} for their characters alone")
        backend = tokenizers.Tokenizer(models.BPE(unk_token=UNKNOWN, fuse_unk=True))
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Metaspace(prepend_scheme="always"),
                pre_tokenizers.Split("\n", "isolated"),
                pre_tokenizers.Punctuation("isolated"),
            ]
        )
        backend.decoder = decoders.Metaspace(prepend_scheme="always")
        trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[UNKNOWN, BOS, EOS], show_progress=False)
        backend.train_from_iterator(texts, trainer)
        return cls(backend)

    def save(self, folder: str | pathlib.Path) -> None:
        """tokenizer.json and tokenizer_config.json into a folder, as `from_folder` and transformers read them."""
        folder = pathlib.Path(folder)
        self._backend.save(str(folder / "tokenizer.json"))
        names = {
            name: self._backend.id_to_token(number)
            for name, number in (("bos_token", self.bos), ("eos_token", self.eot))
        }
        said = {"tokenizer_class": "PreTrainedTokenizerFast", **names, "unk_token": UNKNOWN}
        (folder / "tokenizer_config.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")

    def encode(self, text: str) -> list[int]:
        """Ids of a text, nothing before or after it."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """The text of ids without special tokens and without space around it."""
        return self._backend.decode(list(map(int, ids)), skip_special_tokens=True).strip()

    def _special(self, name):
        found = self._backend.token_to_id(name)
        if found is None:
            raise BadValue(f"the vocabulary has no token {name!r}")
        return found
