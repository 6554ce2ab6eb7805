"""What a small language model reads before it hears: no sentence that is tested, and answers that are right."""

import collections

import numpy as np
import pytest

from moejax.data.manifest import COLUMNS, UNKNOWN, Manifest
from moejax.errors import BadValue, NotThere
from moejax.runtime.files import write_json
from moejax.speech import grammar
from moejax.tasks import audio_llm
from moejax.text.llama_tokenizer import LlamaTokenizer
from moejax.training import chat_lines

SPLITS = ("train", "train", "train", "dev", "test")


def workdir(path, pairs, source="builtin"):
    """As `moejax describe` leaves it: of five utterances three are trained on, one belongs to dev and one to test."""
    rows = [
        {
            **{name: "" for name, kind in COLUMNS.items() if name not in UNKNOWN},
            **{
                "id": f"u{n}",
                "audio": f"{n}.wav",
                "text": text,
                "translation": german,
                "translation_source": "grammar",
            },
            **{"seconds": 1.0, "silence": 0.0, "sample": False, "split": SPLITS[n % 5], "speaker": "ann"},
        }
        for n, (text, german) in enumerate(pairs)
    ]
    table = {name: [row[name] for row in rows] for name in rows[0]}
    (path / "describe").mkdir(parents=True)
    Manifest.from_columns(table).save(path / "describe" / "manifest.parquet")
    config = {"data": {"source": source}, "seed": 0, "translate": {"target": "de"}}
    write_json(path / "config.json", {"config": config})
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    said = grammar.sample(40, 0)
    said += [(said[4][0].upper() + "!", said[4][1])]  # a test sentence again, in training and otherwise written
    return workdir(tmp_path_factory.mktemp("chat") / "W", said), said


def test_no_sentence_of_dev_or_test_is_read_and_each_of_training_is(folder):
    place, said = folder
    pairs, target = chat_lines.pairs_of(place, 500)
    texts = [text for text, _ in pairs]
    held = {text for n, (text, _) in enumerate(said) if SPLITS[n % 5] != "train"}
    assert target == "de" and len(held) == 16 and not held & {text.lower().strip("!") for text in texts}
    assert {said[n] for n in range(40) if SPLITS[n % 5] == "train"} <= set(pairs)
    assert len(texts) == len(set(texts)) == 24 + 500
    assert chat_lines.pairs_of(place, 500)[0] == pairs and len(chat_lines.pairs_of(place, 0)[0]) == 24


def test_each_pair_is_asked_for_its_text_and_for_its_translation(folder):
    pairs, _ = chat_lines.pairs_of(folder[0], 20)
    lines = chat_lines.lines_of(pairs, "de", places=40)
    assert len(lines) == 2 * len(pairs) and chat_lines.lines_of(pairs, "de", places=40) == lines
    for (text, german), transcribed, translated in zip(pairs, lines[::2], lines[1::2], strict=True):
        for line, task, answer in ((transcribed, "transcribe", text), (translated, "translate_de", german)):
            before, rest = audio_llm.prompt(audio_llm.QUESTIONS[task]).split(audio_llm.PLACE)
            assert line.startswith(f"{before} ") and line.endswith(f" {rest} {answer}")
            places = line.removeprefix(before).removesuffix(f"{rest} {answer}").split()
            assert len(places) == 40
            heard = [word for n, word in enumerate(places) if word != "pause" and places[n - 1 : n] != [word]]
            assert heard == text.split()
    plain = chat_lines.lines_of(pairs[:1], "de", places=0)
    assert f"<Speech> {pairs[0][0]} </Speech>" in plain[0]


def test_a_line_is_the_ids_of_a_question_about_a_recording(folder):
    pairs, target = chat_lines.pairs_of(folder[0], 20)
    lines = chat_lines.lines_of(pairs, target, places=30)
    tokenizer = LlamaTokenizer.train(lines, 400)
    asked = audio_llm.prompt(audio_llm.QUESTIONS["translate_de"])
    given = audio_llm.prompt_ids(tokenizer, asked, heard=1, vocab_size=tokenizer.vocab_size)
    at = given.index(tokenizer.vocab_size)
    ids, first = audio_llm.example(tokenizer, given, pairs[0][1])
    said = tokenizer.encode(lines[1].split("<Speech> ")[1].split(" </Speech>")[0])
    assert tokenizer.encode(lines[1]) == [*ids[1:at], *said, *ids[at + 1 : -1]] and first == len(given)


def test_words_last_as_long_as_their_letters_do():
    rng = np.random.default_rng(0)
    counts = collections.Counter(word for _ in range(100) for word in chat_lines.drawn_out("a kitchen", 9, rng).split())
    assert counts["a"] == 100 and 200 < counts["kitchen"] < 350
    with pytest.raises(BadValue, match="the text 'a kitchen' lasts 3|the text 'a kitchen' lasts 4"):
        for _ in range(20):
            chat_lines.drawn_out("a kitchen", 2, rng)


def test_what_has_no_pairs_is_refused(folder, tmp_path):
    with pytest.raises(NotThere, match="`moejax describe` writes it"):
        chat_lines.pairs_of(tmp_path, 0)
    silent = workdir(tmp_path / "silent", [("a text", "")] * 5)
    with pytest.raises(BadValue, match="no training utterance has a translation"):
        chat_lines.pairs_of(silent, 0)
    own = workdir(tmp_path / "own", [(f"text {n}", f"Text {n}") for n in range(5)], source="folder")
    with pytest.raises(BadValue, match="only the embedded corpus has a grammar"):
        chat_lines.pairs_of(own, 1)
    assert chat_lines.pairs_of(own, 0)[0] == [(f"text {n}", f"Text {n}") for n in range(3)]
    with pytest.raises(BadValue, match="extra is -1"):
        chat_lines.pairs_of(folder[0], -1)
