"""Texts of corpora as published models write them."""

import pytest

from moejax.text.sentence import sentence


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ("WE CALL IT BEAR", "We call it bear."),
        ("we call  it bear", "We call it bear."),
        ("We call it bear.", "We call it bear."),
        ("We call it Bear", "We call it Bear"),
        ("what is it?", "what is it?"),
        ("", ""),
    ],
)
def test_corpora_in_capitals_are_written_as_sentences(given, want):
    assert sentence(given) == want
