"""Words as phones: what espeak-ng reads, and TIMIT's names for the same."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from moejax.align import files
from moejax.errors import BadValue
from moejax.speech import timed
from moejax.text import phones
from moejax.text.units import Inventory, spelling_of

pytest.importorskip("espeakng_loader")
ENGLISH = spelling_of("phones", "en")


def test_words_that_sound_alike_are_spelled_alike():
    inventory = Inventory.of(["two sheep", "TOO, don't! -"], ENGLISH)
    assert inventory.kind == "phones" and inventory.units[0] == ""
    assert inventory.encode(["two"]) == inventory.encode(["2"]) == inventory.encode(["Too!"])
    assert [inventory.units[label] for label in inventory.encode(["sheep"])[0]] == ["ʃ", "iː", "p"]
    assert inventory.encode(["-", "’"]) == ([], [])
    assert phones.of_word("chat", "fr") != phones.of_word("chat", "en-us")


def test_several_threads_are_told_what_one_is():
    words = [f"{first}{rest}" for first in "bdfgklmp" for rest in ("ad", "eed", "ome", "ight", "ound")]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda word: phones.of_word(word, "en-us"), words))
    phones._read.cache_clear()
    assert together == [phones.of_word(word, "en-us") for word in words]
    assert len({tuple(one) for one in together}) > 0.9 * len(words)


def test_a_language_that_it_cannot_read():
    with pytest.raises(BadValue, match="has no voice 'tlh'"):
        phones.of_word("nuqneH", phones.voice_of("tlh"))


def test_timit_names_phones_as_the_synthesiser_does():
    """Dictionary entries of TIMIT for these words, in its own symbols."""
    said = {"she": "sh iy", "your": "y ao r", "dark": "d aa r k", "wash": "w aa sh", "all": "ao l", "year": "y ih r"}
    alike = 0
    for word, names in said.items():
        ours, theirs = phones.of_word(word, "en-us"), [phones.of_timit(name) for name in names.split()]
        alike += sum(name in "".join(ours) for name in theirs) / len(theirs)
    assert alike > 0.7 * len(said)
    assert [phones.of_timit(name) for name in ("h#", "kcl", "jh", "b")] == ["", "", "dʒ", "b"]


def test_a_synthesised_recording_comes_with_its_phones(tmp_path):
    (spoken,) = timed.write(["the cheap dogs sing"], tmp_path, ["en-us"])
    found = files.reference(tmp_path / "00000.phn", "phones")
    inventory = Inventory.of(["the cheap dogs sing"], ENGLISH)
    asked = [inventory.units[label] for label in inventory.encode("the cheap dogs sing".split())[0]]
    assert [name for name, _, _ in found] == asked and len(spoken.phones) == len(asked)
    assert all(abs(start - there[1]) < 1e-4 for (_, start, _), there in zip(found, spoken.phones, strict=True))
