"""Transcripts that no decoder takes are found when the corpus is looked at."""

import csv

import pytest
import tiny_model
from ml_collections import ConfigDict
from test_describe import Folder, config, corpus

from moejax.training import base, describe, text_room


@pytest.fixture
def root(tmp_path):
    """40 utterances, and one whose text is a chapter."""
    found = corpus(tmp_path / "corpus", count=40)
    with open(found / "metadata.csv", "a", newline="") as stream:
        csv.writer(stream).writerow(("0.wav", "x y " * 400, "S0", "c0"))
    rows = (found / "metadata.csv").read_text().replace("file_name,", "id,file_name,").splitlines()
    numbered = [rows[0], *(f"u{number},{row}" for number, row in enumerate(rows[1:]))]
    (found / "metadata.csv").write_text("\n".join(numbered) + "\n")
    return found


def with_model(cfg, folder):
    with cfg.unlocked():
        cfg.model = ConfigDict({"pretrained": str(folder), "vocabulary": "", "size": "micro", "sizes": {}})
    return cfg


def test_a_text_that_does_not_fit_is_a_named_counted_skip(tmp_path, root):
    model = tiny_model.write(tmp_path / "model", timed=False)
    work = Folder(tmp_path / "w")
    summary = describe.run(with_model(config(root), model), work)
    assert summary["skipped"] == {"text_too_long": 1} and summary["utterances"] == 40
    assert work.path("describe/skipped.csv").read_text().splitlines()[1:] == [
        'u40,text_too_long,"the text has 1604 tokens, the model takes 32"'
    ]
    assert any("text_too_long 1" in line for line in work.lines)


def test_only_long_texts_make_the_manifest_depend_on_the_model(tmp_path, root):
    """Workdirs of corpora without them stay finished."""
    model = tiny_model.write(tmp_path / "model", timed=False)
    assert describe.inputs(config(root)) != describe.inputs(with_model(config(root), model))
    short = corpus(tmp_path / "short")
    assert describe.inputs(config(short)) == describe.inputs(with_model(config(short), model))
    assert text_room.room(config(root), ["x " * 2000])("x " * 2000) is None  # the vocabulary is yet to be learnt


def test_a_vocabulary_that_was_learnt_is_checked_at_once(tmp_path, root):
    class Learnt:
        prefix = staticmethod(lambda language, task: [0, 1])
        encode = staticmethod(str.split)

    class Context:
        cfg = config(root)

        class corpus:  # noqa: N801
            class manifest:  # noqa: N801
                column = staticmethod({"id": ["a", "b"], "text": ["one two", "one " * 99]}.get)

    base._check_room(Context, Learnt, 101)
    with pytest.raises(ValueError, match="1 of 2 transcripts .* utterance 'b' with 101 tokens.* takes 64"):
        base._check_room(Context, Learnt, 64)


def test_speakers_that_differ_by_case_only_are_remarked_on(tmp_path, root):
    work = Folder(tmp_path / "w")
    describe.run(config(root), work)
    assert "warning: speakers S0 and s0 differ only by case: 2 speakers, or one?" in work.lines
    clean = Folder(tmp_path / "v")
    describe.run(config(corpus(tmp_path / "clean")), clean)
    assert not [line for line in clean.lines if "differ only" in line]
