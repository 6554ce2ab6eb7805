"""Whisper's tokenizer: byte-level BPE text tokens, then the special tokens in their published order.

    0 .. eot-1                 text
    eot = <|endoftext|>, <|startoftranscript|>, one token per language, <|translate|>, <|transcribe|>, <|startoflm|>,
    <|startofprev|>, <|nospeech|>, <|notimestamps|>, then the timestamps <|0.00|>, <|0.02|>, ...
    behind all of them, in a model that was taught them, <|emotion:happy|>, ... (`with_emotions`)

Every id from the end token on is special, which is how text and control are told apart here. The vocabulary comes from
a Hugging Face folder, from the published tiktoken files, or is trained on a corpus (the micro family).
"""

import copy
import functools
import json
import pathlib
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from moejax.audio.constants import TIMESTAMP_STEP
from moejax.errors import BadValue, NotThere
from moejax.runtime.files import replacing
from moejax.text import ranks as ranks_of
from moejax.text.languages import NAMES, unknown

LANGUAGES = tuple(NAMES)
TASKS = ("translate", "transcribe")
EOT, SOT, NO_TIMESTAMPS = "<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"
SOT_PREV = "<|startofprev|>"
NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")  # one token; checkpoints before large-v3 use the second name

_LISTS = ("vocabulary.json", "vocabulary.txt")  # all tokens in the order of their ids, of CTranslate2
_ENGLISH_EOT = 50256  # the GPT-2 vocabulary of the .en models; the multilingual text vocabulary has one token more
_MUSIC = "♩♪♫♬♭♮♯"
_SYMBOLS = (
    [*'"#()*+/:;<=>@[\\]^_`{|}~「」『』']
    + "<< >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪".split()
    + [*_MUSIC]
)


class Tokenizer:
    """Text to ids and back, and the ids of the control tokens, whatever the vocabulary's origin."""

    def __init__(self, backend: tokenizers.Tokenizer, *, multilingual: bool):
        """`backend` holds the text model and the special tokens; use one of the class methods instead."""
        self._backend = backend
        # Text is encoded without the special tokens: a transcript that spells "<|endoftext|>" is just text.
        self._text = tokenizers.Tokenizer(backend.model)
        self._text.pre_tokenizer, self._text.normalizer = backend.pre_tokenizer, backend.normalizer
        self._text.decoder = backend.decoder
        self._specials = {token.content: id for id, token in backend.get_added_tokens_decoder().items()}
        self.is_multilingual = multilingual
        self.target = ""  # of `into`
        self.emotions: dict[str, int] = {}  # {name: id}, of `with_emotions`
        self.eot, self.sot, self.no_timestamps = map(self._special, (EOT, SOT, NO_TIMESTAMPS))
        self.no_speech, self.sot_prev = self._special(*NO_SPEECH), self._special(SOT_PREV)
        self.timestamp_begin = self.no_timestamps + 1
        self.vocab_size = max(backend.get_vocab_size(with_added_tokens=True), max(self._specials.values()) + 1)
        codes = {token[2:-2] for token in self._specials} & set(LANGUAGES)
        self.languages = tuple(sorted(codes, key=lambda code: self._specials[f"<|{code}|>"]))

    @classmethod
    def from_hf_folder(cls, path):
        """Tokenizer of a Whisper folder: tokenizer.json, or the older vocab.json, merges.txt, added_tokens.json, or
        CTranslate2's list of tokens, vocabulary.json or vocabulary.txt.

        Whether it is multilingual is read from tokenizer_config.json or generation_config.json where they say so, else
        it follows from the vocabulary (the English-only one is GPT-2's).
        """
        folder = pathlib.Path(path)
        if (folder / "tokenizer.json").is_file():
            backend = _with_first_merge(_from_file(tokenizers.Tokenizer.from_file, folder / "tokenizer.json"))
        elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            model = _from_file(models.BPE.from_file, folder / "vocab.json", folder / "merges.txt")
            added = _read_json(folder / "added_tokens.json")
            places = {EOT: -1, **added}
            backend = _byte_level(model, sorted({EOT: model.token_to_id(EOT), **added}, key=places.__getitem__))
        elif listed := [file for name in _LISTS if (file := folder / name).is_file()]:
            backend = _from_tokens(listed[0])
        else:
            raise NotThere(f"{folder}: no tokenizer.json, nor vocab.json with merges.txt, nor {' nor '.join(_LISTS)}")
        said = {**_read_json(folder / "generation_config.json"), **_read_json(folder / "tokenizer_config.json")}
        multilingual = said.get("is_multilingual", backend.token_to_id(EOT) != _ENGLISH_EOT)
        try:
            return cls(backend, multilingual=bool(multilingual))
        except ValueError as error:
            raise BadValue(f"{folder}: {error}") from error

    @classmethod
    def from_tiktoken(cls, path, *, multilingual: bool, num_languages: int = 99):
        """Tokenizer of a published vocabulary, multilingual.tiktoken or gpt2.tiktoken: lines of base64 token and rank.

        The files hold no special tokens; they are appended with `num_languages` languages (99, or 100 for large-v3) and
        the 1501 timestamps, for the English-only vocabulary as well: 51864, 51865 or 51866 tokens in all.
        """
        if not 0 < num_languages <= len(LANGUAGES):
            raise BadValue(f"from_tiktoken: num_languages is {num_languages}, must be 1 to {len(LANGUAGES)}")
        vocab, merges = ranks_of.merges_of(ranks_of.read(path))
        specials = special_tokens(LANGUAGES[:num_languages], timestamps_seconds=30)
        return cls(_byte_level(models.BPE(vocab=vocab, merges=merges), specials), multilingual=multilingual)

    @classmethod
    def published(cls, folder):
        """Tokenizer of a folder that holds multilingual.tiktoken, or else gpt2.tiktoken (English only), or else the
        tokenizer of a Hugging Face Whisper.
        """
        folder = pathlib.Path(folder)
        for name, multilingual in (("multilingual.tiktoken", True), ("gpt2.tiktoken", False)):
            if (folder / name).is_file():
                return cls.from_tiktoken(folder / name, multilingual=multilingual)
        if any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
            return cls.from_hf_folder(folder)
        raise NotThere(f"{folder}: no vocabulary; multilingual.tiktoken, gpt2.tiktoken or tokenizer.json")

    @classmethod
    def train(cls, texts, vocab_size: int, languages=("en", "de"), timestamps_seconds: float = 0):
        """Byte-level BPE learnt from texts, for the micro family; the same texts give the same ids.

        `vocab_size` is the upper limit of the whole vocabulary, special tokens included; a small corpus stays below it.
        Any text can be encoded, as all 256 bytes are tokens. No `languages`: an English-only vocabulary.
        """
        unknown = sorted(set(languages) - set(LANGUAGES))
        if unknown:
            raise BadValue(f"train: unknown languages {unknown}; known: {' '.join(LANGUAGES)}")
        specials = special_tokens(languages, timestamps_seconds)
        room = vocab_size - len(specials)
        if room < 256:
            raise BadValue(f"train: vocab_size {vocab_size} is under 256 bytes + {len(specials)} special tokens")
        learner = _byte_level(models.BPE(), ())
        trainer = trainers.BpeTrainer(
            vocab_size=room,
            min_frequency=2,
            show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )
        learner.train_from_iterator((_spaced(text) for text in texts), trainer)
        return cls(_byte_level(learner.model, specials), multilingual=bool(languages))

    def save(self, folder):
        """Writes tokenizer.json and its configuration, and the older vocab.json, merges.txt, added_tokens.json.

        `from_hf_folder` and transformers' WhisperTokenizer load the folder. transformers finds a language by its place
        in the published list, so `language=` works there only for vocabularies with that order from the start.
        """
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        whole = json.loads(self._backend.to_str())
        control = [name for name, id in self._specials.items() if self.eot < id < self.timestamp_begin]
        named: dict[str, Any] = {"bos_token": EOT, "eos_token": EOT, "unk_token": EOT, "pad_token": EOT}
        named["additional_special_tokens"] = control
        config = {
            **named,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "errors": "replace",
            "is_multilingual": self.is_multilingual,
            "model_max_length": 1024,
            "tokenizer_class": "WhisperTokenizer",
        }
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in whole["model"]["merges"]]
        _write(folder / "tokenizer.json", json.dumps(whole, ensure_ascii=False))
        _write(folder / "tokenizer_config.json", json.dumps(config, indent=2, sort_keys=True))
        _write(folder / "special_tokens_map.json", json.dumps(named, indent=2))
        _write(folder / "vocab.json", json.dumps(whole["model"]["vocab"], ensure_ascii=False))
        _write(folder / "merges.txt", "\n".join(["#version: 0.2", *merges, ""]))
        _write(folder / "added_tokens.json", json.dumps(self._specials, indent=2, ensure_ascii=False))

    def encode(self, text: str) -> list[int]:
        """Ids of a text, no special tokens. One blank comes first, given or not, as in Whisper's targets."""
        return self._ids(_spaced(text)) if text.strip() else []

    def decode(self, ids, skip_special: bool = True, strip: bool = True) -> str:
        """Text of ids; invalid UTF-8 becomes U+FFFD. `strip=False` keeps the leading blank, needed to join segments.

        With `skip_special=False` control tokens and timestamps are spelled out.
        """
        ids = [int(id) for id in ids]
        outside = [id for id in ids if not 0 <= id < max(self.vocab_size, self.timestamp_begin + 1501)]
        if outside:
            raise BadValue(f"decode: ids {outside[:5]} are outside the vocabulary 0..{self.vocab_size - 1}")
        if skip_special:
            text = self._text.decode([id for id in ids if id < self.eot], skip_special_tokens=False)
        else:
            text = "".join(self._spell(run, special) for run, special in _runs(ids, self.eot))
        return text.strip() if strip else text

    def prefix(
        self, language: str = "en", task: str = "transcribe", timestamps: bool = False, emotion: str = ""
    ) -> list[int]:
        """Decoder input before the first text token. English-only vocabularies take neither language nor task, unless
        they write another one (`into`). `emotion`: a name of `emotions`, whose token stands behind these.
        """
        ids = [self.sot]
        if self.target and task == "translate":
            ids += [self._special(f"<|{self.target}|>"), self._special("<|translate|>")]
        elif self.is_multilingual:
            if language not in self.languages:
                raise BadValue(unknown(language, self.languages))
            if task not in TASKS:
                raise BadValue(f"unknown task {task!r}; known: {' '.join(TASKS)}")
            ids += [self._special(f"<|{language}|>"), self._special(f"<|{task}|>")]
        elif language != "en" or task != "transcribe":
            raise BadValue(f"an English-only vocabulary cannot {task} {language!r}; it can transcribe 'en'")
        if emotion:
            if emotion not in self.emotions:
                raise BadValue(f"no token of the emotion {emotion!r}; known: {', '.join(self.emotions) or 'none'}")
            ids.append(self.emotions[emotion])
        return ids if timestamps else ids + [self.no_timestamps]

    def into(self, target: str) -> "Tokenizer":
        """The same for models that learnt to translate into a language (`training.st`): the task translate begins with
        that language's token, which English-only vocabularies have too. Errors: the vocabulary has no such token.
        """
        other = copy.copy(self)
        other.target = target
        other.prefix(task="translate")
        return other

    def with_emotions(self, names, first: int) -> "Tokenizer":
        """The same with a token <|emotion:NAME|> for each of `names`, from id `first` on: behind all that the network
        had rows for (its vocab_size), so that no id moves, of a timestamp neither. Errors: ids that are taken.
        """
        if first < max(self.vocab_size, self.timestamp_begin):
            raise BadValue(f"emotions from id {first} on; the vocabulary has {self.vocab_size} already")
        other = copy.copy(self)
        other.emotions = {name: first + place for place, name in enumerate(names)}
        other.vocab_size = first + len(other.emotions)
        return other

    def language_id(self, language: str) -> int:
        """Id of a language token."""
        if language not in self.languages:
            raise BadValue(unknown(language, self.languages))
        return self._specials[f"<|{language}|>"]

    @functools.cached_property
    def non_speech(self) -> tuple[int, ...]:
        """Text tokens of annotations (brackets, notes, dashes) that the reference forbids; "-" inside a word stays."""
        found = set()
        for symbol in [" -", " '", *_SYMBOLS, *(" " + symbol for symbol in _SYMBOLS)]:
            ids = self._ids(symbol)
            # Notes have no token of their own: their first one goes, which published vocabularies use for little else.
            # A small vocabulary's first token is a lone byte that blanks and quotes need: it stays.
            if len(ids) == 1 or (symbol[-1] in _MUSIC and len(self._text.id_to_token(ids[0]) or "") > 1):
                found.add(ids[0])
        return tuple(sorted(found))

    @functools.cached_property
    def suppress(self) -> tuple[int, ...]:
        """Ids never to be generated: `non_speech` and every control token but the end, languages and timestamps."""
        names = (SOT, "<|translate|>", "<|transcribe|>", "<|startoflm|>", SOT_PREV)
        control = {self._specials[name] for name in names if name in self._specials}
        return tuple(sorted({*self.non_speech, *control, self.no_speech}))

    @functools.cached_property
    def begin_suppress(self) -> tuple[int, ...]:
        """Ids never to be generated first: a lone blank and the end token."""
        return (*self._ids(" "), self.eot)

    def _ids(self, text):
        return self._text.encode(text, add_special_tokens=False).ids

    def _spell(self, ids, special):
        if not special:
            return self._text.decode(ids, skip_special_tokens=False)
        return "".join(self._control(id) for id in ids)

    def _control(self, id):
        if id in self.emotions.values():
            return next(f"<|emotion:{name}|>" for name, own in self.emotions.items() if own == id)
        if id >= self.timestamp_begin:  # spelled by arithmetic: older folders do not list them
            return f"<|{(id - self.timestamp_begin) * TIMESTAMP_STEP:.2f}|>"
        name = self._backend.id_to_token(id)
        assert name is not None, f"the vocabulary has no id {id}"
        return name

    def _special(self, *names):
        for name in names:
            if name in self._specials:
                return self._specials[name]
        raise BadValue(f"the vocabulary has no special token {names[0]}; it has {sorted(self._specials)[:12]}")


def special_tokens(languages, timestamps_seconds: float) -> list[str]:
    """The special tokens in their published order, with timestamps up to this many seconds (0: none)."""
    steps = round(timestamps_seconds / TIMESTAMP_STEP)
    times = [f"<|{i * TIMESTAMP_STEP:.2f}|>" for i in range(steps + 1)] if timestamps_seconds else []
    tasks = [f"<|{task}|>" for task in TASKS]
    control = ["<|startoflm|>", SOT_PREV, NO_SPEECH[0], NO_TIMESTAMPS]
    return [EOT, SOT, *(f"<|{code}|>" for code in languages), *tasks, *control, *times]


def _byte_level(model, specials):
    """A byte-level BPE tokenizer whose special tokens take the ids after the model's."""
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    control = [tokenizers.AddedToken(name, special=True, normalized=False) for name in specials]
    # The timestamps are not "special" to transformers, which takes the last special id for the no-timestamps token.
    times = [token for token in control if token.content[2:3].isdigit()]
    for token in times:
        token.special = False
    backend.add_special_tokens([token for token in control if token.special])
    backend.add_tokens(times)
    return backend


def _with_first_merge(backend):
    """The tokenizer with the merge that makes its first token of two bytes.

    tokenizer.json of some published multilingual models lacks it (" t"), so that " the" is spelled in two tokens there,
    which neither the reference nor the training of these models did.
    """
    first = backend.id_to_token(256)
    if first is None or len(first) != 2 or [token.id for token in backend.model.tokenize(first)] == [256]:
        return backend
    whole = json.loads(backend.to_str())
    merges = whole["model"]["merges"]
    merges.insert(0, list(first) if not merges or isinstance(merges[0], list) else " ".join(first))
    return tokenizers.Tokenizer.from_str(json.dumps(whole))


def _from_tokens(path):
    """A byte-level BPE tokenizer of a list of all its tokens, text first, whose ids are the ranks of its merges."""
    raw = path.read_text(encoding="utf-8")
    try:
        tokens = json.loads(raw) if path.suffix == ".json" else raw.removesuffix("\n").split("\n")
        eot = tokens.index(EOT)
        bytes_of = {character: byte for byte, character in ranks_of.byte_alphabet().items()}
        ranks = {bytes(bytes_of[character] for character in token): id for id, token in enumerate(tokens[:eot])}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadValue(f"{path}: no list of Whisper's tokens ({type(error).__name__}: {str(error)[:100]})") from error
    if len(ranks) < eot or len(set(tokens)) < len(tokens):
        raise BadValue(f"{path}: a token is there twice")
    vocab, merges = ranks_of.merges_of(ranks)
    return _byte_level(models.BPE(vocab=vocab, merges=merges), tokens[eot:])


def _runs(ids, eot):
    """Ids cut into runs of text and of special tokens: (ids, special)."""
    run = []
    for id in ids:
        if run and (run[-1] >= eot) != (id >= eot):
            yield run, run[-1] >= eot
            run = []
        run.append(id)
    if run:
        yield run, run[-1] >= eot


def _spaced(text):
    return " " + text.strip()


def _read_json(path) -> dict:
    """A JSON object, empty where the file does not exist. Errors: ValueError naming the file that holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise BadValue(f"{path}: not valid JSON ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(found, dict):
        raise BadValue(f"{path}: holds a {type(found).__name__}, not an object")
    return found


def _from_file(read, *paths):
    try:
        return read(*map(str, paths))
    except Exception as error:  # the library raises nothing narrower
        raise BadValue(f"{paths[0]}: no readable vocabulary ({' '.join(str(error).split())[:200]})") from error


def _write(path, text):
    """Writes a file whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
