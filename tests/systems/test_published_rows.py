"""Rows of published models and of enrolled speakers: which there are, and what they leave out."""

import types

import numpy as np
import pytest

from moejax.systems import enrolled
from moejax.systems import published as published_rows


def test_phrases_of_a_speaker_whom_nothing_heard_are_left_out_of_every_row():
    who = ["ann"] * 5 + ["new"] * 4 + ["one", ""]
    columns = {"speaker": np.array(who, object), "split": np.array(["train"] * 3 + ["test"] * 8, object)}
    corpus = types.SimpleNamespace(manifest=types.SimpleNamespace(column=columns.__getitem__))
    settings = types.SimpleNamespace(seed=0)
    context = types.SimpleNamespace(base=types.SimpleNamespace(times=0.25), cfg=settings, corpus=corpus)
    spoken = enrolled.phrases(context, np.arange(3, 11), (2, 5))
    assert sorted(spoken.own["ann"]) == [0, 1, 2] and spoken.own["one"] == [] and "" not in spoken.own
    assert len(spoken.own["new"]) == 3 and len(spoken.rows) == 5  # one is left to be scored
    assert set(spoken.rows.tolist()) | set(spoken.own["new"]) == set(range(3, 11))
    context.base.times = 0.0
    with pytest.raises(ValueError, match="model.pretrained"):
        enrolled.phrases(context, np.arange(3, 11), (2,))


def test_two_published_models_with_one_name_are_refused():
    assert [row.name for row in published_rows.systems(("base", "openai/whisper-large-v3")).values()] == [
        "whisper-base",
        "whisper-large-v3",
    ]
    with pytest.raises(ValueError, match="'whisper-base'"):
        published_rows.systems(("base", "openai/whisper-base"))
