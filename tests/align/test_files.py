"""Alignments written and read back."""

import json

import pytest

from moejax.align import files
from moejax.errors import BadValue
from moejax.tasks.forced import Placed

WORDS = [
    Placed('say "hi"', 0.1, 0.5, 0.9, (Placed("s", 0.1, 0.3, 0.9), Placed("y", 0.3, 0.5, 0.9))),
    Placed("-", 0.5, 0.5, 0.0),
    Placed("now", 0.5, 1.25, 0.8, (Placed("n", 0.5, 1.25, 0.8),)),
]
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
1.5
<exists>
2
"TextTier"
"clicks"
0
1.5
1
0.7
"x"
"IntervalTier"
"anna - words"
0
1.5
3
0
0.25
""
0.25
1
"hello"
1
1.5
"sp"
"""


def test_textgrid_has_no_holes_and_comes_back(tmp_path):
    file = tmp_path / "a.TextGrid"
    file.write_text(files.textgrid(WORDS, 1.5, "a"), encoding="utf-8")
    assert files.reference(file) == [('say "hi"', 0.1, 0.5), ("now", 0.5, 1.25)]  # a word of no length is no interval
    assert files.reference(file, "letters") == [("s", 0.1, 0.3), ("y", 0.3, 0.5), ("n", 0.5, 1.25)]
    lines = [line.split("=")[1].strip() for line in file.read_text().splitlines() if line.strip().startswith("xm")]
    tier = [float(value) for value in lines[4 : 4 + 8]]
    assert tier == [0, 0.1, 0.1, 0.5, 0.5, 1.25, 1.25, 1.5]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_praats_short_form_and_its_encodings(tmp_path, encoding):
    file = tmp_path / "a.TextGrid"
    file.write_text(SHORT, encoding=encoding)
    assert files.reference(file) == [("hello", 0.25, 1.0)]
    with pytest.raises(BadValue, match="has no tier 'phones'; it has clicks, anna - words"):
        files.reference(file, "phones")


def test_ctm_wrd_and_what_is_neither(tmp_path):
    (tmp_path / "a.ctm").write_text(files.ctm(WORDS[2:], 1.5, "a"))
    assert files.reference(tmp_path / "a.ctm") == [("now", 0.5, 1.25)]
    (tmp_path / "a.wrd").write_text("1600 8000 she\n")
    assert files.reference(tmp_path / "a.wrd") == [("she", 0.1, 0.5)]
    (tmp_path / "b.wrd").write_text("not a table\n")
    with pytest.raises(BadValue, match=r"b.wrd is no TextGrid, CTM, .wrd or .phn"):
        files.reference(tmp_path / "b.wrd")


def test_json_has_words_and_letters():
    found = json.loads(files.as_json(WORDS, 1.5, "a"))
    assert [word["text"] for word in found["words"]] == ['say "hi"', "-", "now"]
    assert found["words"][0]["letters"][1] == {"text": "y", "start": 0.3, "end": 0.5, "probability": 0.9}
    assert "letters" not in found["words"][1]


def test_phones_are_a_tier_of_their_own(tmp_path):
    file = tmp_path / "a.TextGrid"
    file.write_text(files.textgrid(WORDS, 1.5, "a", "phones"), encoding="utf-8")
    assert files.reference(file, "phones") == [(t, round(s, 4), round(e, 4)) for t, s, e in files.inside(WORDS)]
    with pytest.raises(BadValue, match=r"has no tier 'letters'; it has words, phones"):
        files.reference(file, "letters")
    assert "phones" in json.loads(files.as_json(WORDS, 1.5, "a", "phones"))["words"][0]


def test_a_stop_of_timit_begins_with_its_closure(tmp_path):
    rows = "0 1600 h#\n1600 3200 dcl\n3200 4800 jh\n4800 6400 ah\n6400 8000 tcl\n8000 9600 s\n9600 11200 kcl\n"
    (tmp_path / "a.phn").write_text(rows)
    found = files.reference(tmp_path / "a.phn", "phones")
    assert found == [("d\u0292", 0.1, 0.3), ("\u028c", 0.3, 0.4), ("t", 0.4, 0.5), ("s", 0.5, 0.6), ("k", 0.6, 0.7)]
