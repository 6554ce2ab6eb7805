import base64
import json

import numpy as np
import pytest

from moejax.text import languages
from moejax.text.tokenizer import LANGUAGES, Tokenizer, special_tokens

TEXTS = ["the cat sat on the mat", "the hat of the cat", "Straße und Käse", "don't stop -- (no)"] * 3
AWKWARD = [
    "the cat",
    "  many   blanks\tand\nlines ",
    "Grüße, 世界! 😀",
    "it's 12,345.67",
    "<|endoftext|> in a text",
    "♪ music ♪",
    "a" * 99,
]


@pytest.fixture(scope="module")
def micro():
    return Tokenizer.train(TEXTS, 400)


def write_ranks(path, tokens):
    path.write_text("".join(f"{base64.b64encode(t).decode() or '='} {i}\n" for i, t in enumerate(tokens)))
    return path


def greedy_ranks(text, ranks):
    """Byte-pair encoding of one piece straight from the ranks."""
    parts = [bytes([b]) for b in text.encode()]
    while True:
        pairs = [(ranks[a + b], i) for i, (a, b) in enumerate(zip(parts, parts[1:], strict=False)) if a + b in ranks]
        if not pairs:
            return [ranks[p] for p in parts]
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


@pytest.mark.parametrize("text", AWKWARD)
def test_any_text_survives(micro, text):
    ids = micro.encode(text)
    assert max(ids) < micro.eot
    assert micro.decode(ids) == text.strip()
    assert micro.decode(ids, strip=False) == " " + text.strip()


def test_a_leading_blank_does_not_matter(micro):
    assert micro.encode("the cat") == micro.encode(" the cat ")
    assert micro.encode("  ") == []


def test_training_repeats_and_learns_words(micro):
    again = Tokenizer.train(TEXTS, 400)
    assert [again.encode(t) for t in AWKWARD] == [micro.encode(t) for t in AWKWARD]
    assert len(micro.encode("the cat")) == 2
    assert micro.vocab_size <= 400


def test_special_tokens_follow_the_text_in_published_order(micro):
    names = ["endoftext", "startoftranscript", "en", "de", "translate", "transcribe"]
    names += ["startoflm", "startofprev", "nospeech", "notimestamps"]
    ids = range(micro.eot, micro.eot + 10)
    assert micro.decode(ids, skip_special=False) == "".join(f"<|{name}|>" for name in names)
    assert (micro.sot, micro.no_speech, micro.no_timestamps) == (micro.eot + 1, micro.eot + 8, micro.eot + 9)
    assert micro.vocab_size == micro.timestamp_begin == micro.eot + 10
    assert micro.languages == ("en", "de") and micro.is_multilingual


def test_prefix(micro):
    at = micro.eot
    assert micro.prefix() == [at + 1, at + 2, at + 5, at + 9]
    assert micro.prefix("de", "translate", timestamps=True) == [at + 1, at + 3, at + 4]
    with pytest.raises(ValueError, match=r"'fr'.*en \(english\), de \(german\)"):
        micro.prefix("fr")
    with pytest.raises(ValueError, match="'sing'.*transcribe"):
        micro.prefix("en", "sing")


def test_english_only_vocabulary_takes_no_language():
    plain = Tokenizer.train(TEXTS, 300, languages=())
    assert plain.prefix() == [plain.sot, plain.no_timestamps]
    assert plain.prefix(timestamps=True) == [plain.sot]
    with pytest.raises(ValueError, match="English-only"):
        plain.prefix("de")


def test_decode_drops_control_tokens_unless_asked(micro):
    ids = [*micro.prefix(), *micro.encode("the cat"), micro.eot, micro.eot]
    assert micro.decode(np.asarray(ids)) == "the cat"
    assert micro.decode(ids, skip_special=False).endswith("<|notimestamps|> the cat<|endoftext|><|endoftext|>")
    with pytest.raises(ValueError, match="99999"):
        micro.decode([99999])


def test_timestamps():
    timed = Tokenizer.train(TEXTS, 1900, timestamps_seconds=30)
    assert timed.vocab_size - timed.timestamp_begin == 1501
    ids = [timed.timestamp_begin + 5, *timed.encode("the cat"), timed.vocab_size - 1]
    assert timed.decode(ids, skip_special=False) == "<|0.10|> the cat<|30.00|>"
    assert timed.decode(ids) == "the cat"


@pytest.mark.parametrize("seconds", [0, 4])
def test_saved_folder_loads_the_same(tmp_path, seconds):
    tokenizer = Tokenizer.train(TEXTS, 700, timestamps_seconds=seconds)
    tokenizer.save(tmp_path / "a")
    again = Tokenizer.from_hf_folder(tmp_path / "a")
    (tmp_path / "a" / "tokenizer.json").unlink()
    from_parts = Tokenizer.from_hf_folder(tmp_path / "a")
    for other in (again, from_parts):
        assert [other.encode(t) for t in AWKWARD] == [tokenizer.encode(t) for t in AWKWARD]
        for name in ("eot", "sot", "no_speech", "vocab_size", "languages", "is_multilingual", "suppress"):
            assert getattr(other, name) == getattr(tokenizer, name), name
    assert not [p for p in (tmp_path / "a").iterdir() if p.name.startswith(".")]


def test_english_only_is_remembered(tmp_path):
    Tokenizer.train(TEXTS, 300, languages=()).save(tmp_path)
    assert not Tokenizer.from_hf_folder(tmp_path).is_multilingual
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del config["is_multilingual"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert Tokenizer.from_hf_folder(tmp_path).is_multilingual


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="tokenizer.json"):
        Tokenizer.from_hf_folder(tmp_path / "nowhere")


@pytest.mark.parametrize("multilingual,languages,specials", [(False, 99, 1608), (True, 99, 1608), (True, 100, 1609)])
def test_tiktoken_file(tmp_path, multilingual, languages, specials):
    merged = [b"th", b" t", b"he", b" th", b" the", b"aa", b"\xc3\xbc", b"at", b" c", b" cat", b"aaaa"]
    tokens = [bytes([b]) for b in range(256)] + merged + [b""]
    path = write_ranks(tmp_path / "x.tiktoken", tokens)
    tokenizer = Tokenizer.from_tiktoken(path, multilingual=multilingual, num_languages=languages)
    ranks = {token: rank for rank, token in enumerate(tokens)}
    for word in ("the", "cat", "that", "aaaaaaa", "grün", "athe"):
        assert tokenizer.encode(word) == greedy_ranks(" " + word, ranks), word
        assert tokenizer.decode(tokenizer.encode(word)) == word
    assert tokenizer.eot == len(tokens) and tokenizer.vocab_size == len(tokens) + specials
    assert tokenizer.languages == LANGUAGES[:languages]
    assert len(tokenizer.prefix()) == (4 if multilingual else 2)


def test_published_sizes():
    # 50256 and 50257 text tokens in the two files; the sizes are those of the published checkpoints.
    sizes = [text + len(special_tokens(LANGUAGES[:n], 30)) for text, n in ((50256, 99), (50257, 99), (50257, 100))]
    assert sizes == [51864, 51865, 51866]


@pytest.mark.parametrize("line,message", [("@@ x", "line 2"), ("QUI= 7", "0 to 1"), ("QUJD 1", "one merge")])
def test_damaged_tiktoken_files_are_named(tmp_path, line, message):
    (tmp_path / "x.tiktoken").write_text("QQ== 0\n" + line + "\n")
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_tiktoken(tmp_path / "x.tiktoken", multilingual=True)


def test_suppression_keeps_speech(micro):
    banned = set(micro.suppress)
    assert micro.sot in banned and micro.no_speech in banned and micro.eot not in banned
    assert micro.encode("(")[-1] in banned
    assert not banned & set(micro.encode("don't stop “quoted” it’s"))
    assert micro.begin_suppress == (*micro._ids(" "), micro.eot)


def test_vocabulary_too_small_for_bytes_is_refused():
    with pytest.raises(ValueError, match="256 bytes"):
        Tokenizer.train(TEXTS, 200)
    with pytest.raises(ValueError, match="klingon"):
        Tokenizer.train(TEXTS, 400, languages=("en", "klingon"))


def test_a_folder_of_a_vocabulary_is_read_by_what_lies_in_it(tmp_path, micro):
    ranks = [bytes([byte]) for byte in range(256)]
    for name, multilingual in (("gpt2.tiktoken", False), ("multilingual.tiktoken", True)):
        write_ranks(tmp_path / name, ranks)
        tokenizer = Tokenizer.published(tmp_path)
        assert tokenizer.is_multilingual is multilingual and tokenizer.vocab_size == 256 + 2 + 99 + 6 + 1501
        assert tokenizer.decode([tokenizer.sot_prev], skip_special=False) == "<|startofprev|>"
    micro.save(tmp_path / "hf")
    assert Tokenizer.published(tmp_path / "hf").vocab_size == micro.vocab_size
    with pytest.raises(FileNotFoundError, match="nowhere: no vocabulary; multilingual.tiktoken, gpt2.tiktoken"):
        Tokenizer.published(tmp_path / "nowhere")


def test_languages_are_known_by_code_and_by_name():
    assert len(languages.NAMES) == 100 and len(set(languages.NAMES.values())) == 100
    for code, name in languages.NAMES.items():
        assert {code, name} == {languages.code_of(languages.code_of(name)), languages.NAMES[languages.code_of(code)]}
    for name, code in {"German": "de", " EN ": "en", "Flemish": "nl", "Haitian Creole": "ht", "yue": "yue"}.items():
        assert languages.code_of(name) == code
    assert languages.code_of("Klingon") == "Klingon"
    assert set(languages.CODES.values()) <= set(languages.NAMES)


def test_a_published_file_without_its_first_merge_is_mended(tmp_path):
    """Of published multilingual models: " t" is made by no merge there, and " the" by none that needs it."""
    made = Tokenizer.train(["the cat, the hat, that there then"] * 4, 600)
    made.save(tmp_path)
    whole = json.loads((tmp_path / "tokenizer.json").read_text())
    del whole["model"]["merges"][0]
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    found = Tokenizer.from_hf_folder(tmp_path)
    for text in ("the cat", "that hat then", "  there"):
        assert found.encode(text) == made.encode(text) and found.decode(found.encode(text)) == text.strip()
