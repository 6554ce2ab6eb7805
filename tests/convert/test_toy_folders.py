"""A LLaMA that is written is the one that is read; an audio LLM's Whisper may be faster-whisper's."""

import ctranslate2_writer
import llama_folder
import numpy as np
import pytest
import tiny_llama as tiny

from moejax.convert import hf_llama, hf_whisper, salmonn
from moejax.nn import functional
from moejax.nn.connectors import ConnectorConfig
from moejax.nn.whisper import WhisperConfig
from moejax.text.llama_tokenizer import LlamaTokenizer

HEARS = WhisperConfig(16, 1, 1, 2, 2, 24, 24, 40, num_mel_bins=80, max_source_positions=20, max_target_positions=12)


@pytest.mark.parametrize("config", [tiny.LLAMA, tiny.TIED], ids=["grouped", "tied"])
def test_a_written_llama_is_read_as_it_was(tmp_path, config):
    params = tiny.llama(config)[1]
    hf_llama.save(tmp_path / "llama", config, params, LlamaTokenizer.train(["a text", "ein Text"], 30))
    found, arrays = hf_llama.load(tmp_path / "llama")
    assert found == config
    mine, theirs = functional.paths(params), functional.paths(arrays)
    assert mine.keys() == theirs.keys()
    for path, array in mine.items():
        np.testing.assert_array_equal(theirs[path], np.asarray(array), err_msg=path)


def test_the_encoder_of_a_folder_of_faster_whisper_hears(tmp_path):
    rng = np.random.default_rng(0)
    places = hf_whisper.key_map(HEARS).values()
    flat = {path: rng.normal(size=shape[::-1] if path.endswith("kernel") else shape) for path, shape in places}
    params = functional.nest({path: array.astype(np.float32) for path, array in flat.items()})
    ctranslate2_writer.write(tmp_path / "whisper", HEARS, params, kind="float32")
    llama_folder.write(tmp_path / "llama", llama_folder.tensors())
    rank, config, found = salmonn.load(
        tmp_path / "whisper", tmp_path / "llama", None, None, connector=ConnectorConfig(kind="stacked")
    )
    assert (rank, config.whisper, config.llama, config.sounds) == (0, HEARS, tiny.LLAMA, None)
    mine = functional.paths(params["backbone"]["encoder"])
    theirs = functional.paths(found["backbone"]["encoder"])
    assert mine.keys() == theirs.keys()
    assert all(np.array_equal(theirs[path], array) for path, array in mine.items())
