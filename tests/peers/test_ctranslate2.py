"""What ctranslate2's own converter writes is read as what it was made from. Opt-in: needs ctranslate2 and torch.

pytest tests/peers/test_ctranslate2.py
"""

import json

import numpy as np
import pytest
import tiny_model

from moejax.convert import ctranslate2_model, hf_whisper, whisper_folder
from moejax.nn.functional import paths
from moejax.text.tokenizer import Tokenizer

pytestmark = pytest.mark.filterwarnings("default")  # torch and transformers warn of each other
STEPS = {  # of a row's largest number: half a step of its grid
    **{None: 0.0, "float32": 0.0, "float16": 2**-11, "bfloat16": 2**-8, "int16": 2**-10},
    **dict.fromkeys(("int8", "int8_float32", "int8_float16", "int8_bfloat16"), 2**-8),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("hf") / "m", timed=True)


@pytest.mark.parametrize("kind", STEPS)
def test_a_converted_model_is_the_same(folder, tmp_path, kind):
    ctranslate2_model.convert(folder, tmp_path / "m", quantization=kind)
    config, found = whisper_folder.load(tmp_path / "m")
    assert whisper_folder.is_ctranslate2(tmp_path / "m") and config == hf_whisper.load_config(folder)
    found, wanted = paths(found), paths(hf_whisper.load(folder)[1])
    assert found.keys() == wanted.keys()
    for path, array in wanted.items():
        np.testing.assert_allclose(found[path], array, rtol=0, atol=1.01 * STEPS[kind] * np.abs(array).max())


def test_its_vocabulary_alone_is_enough(folder, tmp_path):
    ctranslate2_model.convert(folder, tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").unlink()
    listed, whole = Tokenizer.from_hf_folder(tmp_path / "m"), Tokenizer.from_hf_folder(folder)
    assert listed.vocab_size == whole.vocab_size and listed.languages == whole.languages
    for text in (*tiny_model.TEXTS, "Ünd 10:30 — 東京"):
        assert listed.encode(text) == whole.encode(text)
    said = whisper_folder.generation(tmp_path / "m")
    assert said["suppress_tokens"] == json.loads((folder / "generation_config.json").read_text())["suppress_tokens"]
