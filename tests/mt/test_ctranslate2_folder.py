"""How folders of CTranslate2 are told apart, by their files alone; tests/peers has them translate."""

import json

import pytest

from moejax.mt.ctranslate2_folder import layout


def folder_of(place, *files, words=()):
    for name in ("model.bin", *files):
        (place / name).write_bytes(b"")
    (place / "shared_vocabulary.json").write_text(json.dumps(list(words)))
    return place


def test_opus_of_one_language_and_of_several(tmp_path):
    one = layout(folder_of(tmp_path, "source.spm", "target.spm", words=["a"]), "en", "de")
    assert (one.kind, one.before, one.first, one.tokens(["x"])) == ("opus-mt", (), (), ["x", "</s>"])
    several = folder_of(tmp_path, words=["a", ">>deu<<", ">>nld<<"])
    assert layout(several, "en", "de").tokens(["x"]) == [">>deu<<", "x", "</s>"]
    with pytest.raises(ValueError, match="does not write 'fr'; it writes deu, nld"):
        layout(several, "en", "fr")


def test_nllb_and_m2m_know_languages_by_other_names(tmp_path):
    shared = "sentencepiece.bpe.model"
    nllb = layout(folder_of(tmp_path, shared, words=["eng_Latn", "deu_Latn"]), "en", "de")
    assert (nllb.kind, nllb.before, nllb.first) == ("nllb", ("eng_Latn",), ("deu_Latn",))
    m2m = layout(folder_of(tmp_path, shared, words=["__en__", "__de__"]), "en", "de")
    assert (m2m.kind, m2m.before, m2m.first) == ("m2m100", ("__en__",), ("__de__",))
    with pytest.raises(ValueError, match="does not translate 'en' into 'cs'"):
        layout(tmp_path, "en", "cs")
    with pytest.raises(ValueError, match="neither NLLB nor M2M100"):
        layout(folder_of(tmp_path, shared, words=["a", "b"]), "en", "de")


def test_what_is_no_such_folder_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no model.bin"):
        layout(tmp_path, "en", "de")
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="neither source.spm, target.spm"):
        layout(tmp_path, "en", "de")
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="has no vocabulary"):
        layout(tmp_path, "en", "de")
