"""Mozilla Common Voice as it is released."""

import pytest

from moejax.data.sources import commonvoice
from moejax.errors import BadValue, NotThere

HEADER = "client_id\tpath\tsentence\tup_votes\tage\tgender\taccents\tlocale\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "clips").mkdir()
    rows = {
        "train": 'a\tone.mp3\t"Nein,  sagte er.\t2\ttwenties\tfemale_feminine\tBayern\tde\n',
        "dev": "b\ttwo\tJa.\t2\t\tmale\t\tde\n",
        "test": "c\tthree.mp3\tEr sagte: „Nein“.\t2\t\tother\t\tde\r\n",
    }
    for part, row in rows.items():
        (tmp_path / f"{part}.tsv").write_text(HEADER + row, encoding="utf-8")
    return tmp_path


def test_the_three_parts_are_read_as_they_lie(root):
    one, two, three = commonvoice.load(root=str(root))
    assert (one.id, one.text, one.speaker, one.gender, one.accent) == ("one", '"Nein, sagte er.', "a", "f", "Bayern")
    assert one.audio == str(root / "clips" / "one.mp3") and one.language == "de"
    assert two.audio == str(root / "clips" / "two.mp3") and (two.gender, two.accent) == ("m", "")
    assert three.text == "Er sagte: „Nein“." and three.language == "de"
    assert [u.split for u in (one, two, three)] == ["train", "dev", "test"]
    (only,) = commonvoice.load(root=str(root), parts=("dev",), text="lower")
    assert only.text == "ja."


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda root: (root / "dev.tsv").unlink(), "no table .*dev.tsv"),
        (lambda root: (root / "clips").rmdir(), "no folder .*clips"),
        (
            lambda root: (root / "dev.tsv").write_text("client_id\tpath\n"),
            "no column 'sentence'; it has client_id, path",
        ),
        (lambda root: (root / "dev.tsv").write_text(HEADER + "a\tb\n"), "line 2 has 2 fields, the header has 8"),
        (lambda root: (root / "dev.tsv").write_text(HEADER + "a\t\tx\t\t\t\t\tde\n"), "line 2 has an empty 'path'"),
        (lambda root: (root / "dev.tsv").write_text(HEADER + "a\t../../x\tx\t\t\t\t\tde\n"), "leads out of"),
        (lambda root: (root / "dev.tsv").write_bytes(HEADER.encode() + b"a\tb\t\xff\t\t\t\t\tde\n"), "not UTF-8"),
    ],
)
def test_what_is_wrong_is_one_line(root, change, says):
    change(root)
    with pytest.raises((BadValue, NotThere), match=says) as error:
        commonvoice.load(root=str(root))
    assert "\n" not in str(error.value)


def test_unknown_words_are_named(root):
    with pytest.raises(BadValue, match="parts='validated'; known: train, dev, test"):
        commonvoice.load(root=str(root), parts=("validated",))
    with pytest.raises(BadValue, match="text='upper'"):
        commonvoice.load(root=str(root), text="upper")
