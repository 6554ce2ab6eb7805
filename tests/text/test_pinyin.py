"""Mandarin as it sounds: syllables of pinyin, readings of hanzi, sandhi."""

import sys

import pytest

from moejax.errors import BadValue, NotInstalled
from moejax.text import pinyin
from moejax.text.pinyin import Syllable
from moejax.text.units import Inventory


def sandhi_of(written: str) -> str:
    """Characters with dictionary tones (bu4不 shi4是) as they sound."""
    phrase = [pinyin.syllable(one[:-1], one[-1]) for one in written.split()]
    return " ".join(one.pinyin for one in pinyin.sandhi(phrase))


def test_every_syllable_is_spelled_as_it_is_read():
    every = [(initial, final) for initial, finals in pinyin.TABLE.items() for final in finals]
    assert 400 <= len(set(every)) == len(every) <= 420
    for initial, final in every:
        for tone in pinyin.TONES:
            found = pinyin.syllable(f"{pinyin.spelled(initial, final)}{tone}")
            assert (found.initial, found.final, found.tone, found.erhua) == (initial, final, tone, False)
            assert pinyin.syllable(found.pinyin).units == found.units


def test_the_table_is_that_of_pypinyin():
    pypinyin = pytest.importorskip("pypinyin.contrib.tone_convert")
    for initial, finals in pinyin.TABLE.items():
        for final in finals:
            written = pinyin.spelled(initial, final)
            assert pypinyin.to_initials(written, strict=True) == initial, written
            theirs = pypinyin.to_finals(written, strict=True, v_to_u=False)
            ours = {"ii": "i", "iii": "i", "iu": "iou", "ui": "uei", "un": "uen"}.get(final, final)
            assert theirs == ours, written


@pytest.mark.parametrize(
    ("written", "units", "tone"),
    [
        ("zhong1", ("zh", "ong"), 1),
        ("shi4", ("sh", "iii"), 4),
        ("si4", ("s", "ii"), 4),
        ("xue2", ("x", "ve"), 2),
        ("lü4", ("l", "v"), 4),
        ("lu:4", ("l", "v"), 4),
        ("lǜ", ("l", "v"), 4),
        ("yuán", ("van",), 2),
        ("wo3", ("uo",), 3),
        ("er2", ("er",), 2),
        ("ma", ("m", "a"), 5),
        ("wanr2", ("uan", "R"), 2),
        ("huar1", ("h", "ua", "R"), 1),
    ],
)
def test_spellings(written, units, tone):
    found = pinyin.syllable(written)
    assert (found.units, found.tone) == (units, tone)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3 ge4", "'3' can be read in several ways"),
        ("ni3 hello", "'hello' is no syllable of Mandarin"),
        ("bong1", "'bong1' is no syllable"),
        ("zhong9", "'9' can be read"),
        ("ii1", "no syllable"),
    ],
)
def test_what_is_no_pinyin_is_refused(text, said):
    with pytest.raises(BadValue, match=said):
        pinyin.read(text)


@pytest.mark.parametrize(
    ("written", "sounds"),
    [
        ("ni3你 hao3好", "ni2 hao3"),
        ("wo3我 hen3很 hao3好", "wo2 hen2 hao3"),
        ("hao3好 ren2人", "hao3 ren2"),
        ("bu4不 shi4是", "bu2 shi4"),
        ("bu4不 hao3好", "bu4 hao3"),
        ("bu4部 shi4是", "bu4 shi4"),  # another word that sounds like it
        ("yi1一 ge4个", "yi2 ge4"),
        ("yi1一 tian1天", "yi4 tian1"),
        ("kan4看 yi1一 kan4看", "kan4 yi5 kan4"),
        ("di4第 yi1一 ge4个", "di4 yi1 ge4"),
        ("tong3统 yi1一", "tong3 yi1"),
    ],
)
def test_sandhi(written, sounds):
    assert sandhi_of(written) == sounds


def test_pinyin_is_taken_as_it_is_written_and_marks_end_a_phrase():
    assert [one.tone for one in pinyin.read("ni3 hao3")] == [3, 3]
    assert [one.text for one in pinyin.read("ni3, hao3!")] == ["ni3", "hao3"]


def test_hanzi_with_readings_of_ones_own():
    pytest.importorskip("pypinyin")
    found = pinyin.read("你好，他还{huan2}没走")
    assert [one.pinyin for one in found] == ["ni2", "hao3", "ta1", "huan2", "mei2", "zou3"]
    assert found[3] == Syllable("还", "h", "uan", 2)
    assert pinyin.read("花{hua1}儿{r}")[0].units == ("h", "ua", "R")
    assert [one.pinyin for one in pinyin.read("女儿")] == ["nv3", "er2"]


def test_hanzi_without_the_extra_name_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pypinyin", None)
    with pytest.raises(NotInstalled, match=r"pip install 'moejax\[pron\]'"):
        pinyin.read("好")
    assert pinyin.read("hao3")[0].final == "ao"


def test_an_inventory_of_sounds():
    inventory = Inventory.of(["ni3 hao3", "wanr2"], "pinyin")
    assert inventory.units == ("", *sorted(["n", "i", "h", "ao", "uan", "R"]))
    assert inventory.words("hao3,wanr2") == ["hao3", "wanr2"]
    labels, word_of = inventory.encode(["hao3", "ma1", "wanr2"])
    assert [inventory.units[one] for one in labels] == ["h", "ao", "uan", "R"] and word_of == [0, 0, 2, 2]
