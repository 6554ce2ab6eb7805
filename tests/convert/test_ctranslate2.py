"""CTranslate2 folders are the same models as Hugging Face's, and what is wrong in one is named."""

import dataclasses
import json
import os
from pathlib import Path

import ctranslate2_writer as writer
import numpy as np
import pytest
import tiny_model

import moejax
from moejax.convert import ctranslate2, ctranslate2_file, hf_whisper, whisper_folder
from moejax.nn.functional import paths
from moejax.nn.whisper import SIZES, WhisperConfig
from moejax.text.tokenizer import Tokenizer

# As distilled models: other layers in the decoder than in the encoder, and 128 mels.
CONFIG = WhisperConfig(16, 3, 1, 2, 4, 48, 24, 40, num_mel_bins=128, max_source_positions=20, max_target_positions=12)


@pytest.fixture(scope="module")
def params():
    """Every array random, layer norms and biases too."""
    rng = np.random.default_rng(0)
    places = hf_whisper.key_map(CONFIG).values()
    flat = {path: rng.normal(size=shape[::-1] if path.endswith("kernel") else shape) for path, shape in places}
    return hf_whisper.nest({path: array.astype(np.float32) for path, array in flat.items()})


def same(found, wanted, tolerance=0.0):
    found, wanted = paths(found), paths(wanted)
    assert found.keys() == wanted.keys()
    for path, array in wanted.items():
        assert found[path].shape == array.shape
        np.testing.assert_allclose(found[path], array, rtol=0, atol=tolerance * np.abs(array).max(), err_msg=path)


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [("float32", 0), ("float16", 2**-11), ("bfloat16", 2**-8), ("int8", 1 / 254), ("int16", 2**-10)],
)
def test_every_number_format_is_the_same_model(params, tmp_path, kind, tolerance):
    folder = writer.write(tmp_path / "m", CONFIG, params, kind=kind)
    config, found = whisper_folder.load(folder)
    assert config == CONFIG == whisper_folder.load_config(folder)
    same(found, params, tolerance * 1.01)
    narrow = whisper_folder.load(folder, dtype="bfloat16")[1]
    assert {str(array.dtype) for array in paths(narrow).values()} == {"bfloat16"}


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
def test_every_version_of_the_format_is_read(params, tmp_path, version):
    folder = writer.write(tmp_path / "m", CONFIG, params)
    arrays = writer.variables(CONFIG, params)
    (folder / "model.bin").write_bytes(writer.model_bin(arrays, writer.TIED if version >= 3 else (), version))
    same(whisper_folder.load(folder)[1], params)


def test_16_bit_weights_without_a_scale_have_the_old_global_one(params, tmp_path):
    arrays = writer.variables(CONFIG, params)
    name = "decoder/embeddings/weight"
    arrays[name] = np.rint(arrays[name] * 1000).astype(np.int16)
    (tmp_path / "model.bin").write_bytes(writer.model_bin(arrays, version=3))
    found = ctranslate2.load(tmp_path)[1]["backbone"]["decoder"]["embed"]
    np.testing.assert_allclose(found, params["backbone"]["decoder"]["embed"], atol=0.00051)


def test_equal_arrays_are_stored_once_and_read_in_every_place(params, tmp_path):
    """The converter stores what is equal once, whatever it belongs to, and before it quantizes."""
    arrays = writer.variables(CONFIG, params)
    other = "encoder/layer_1/self_attention/linear_1/weight"
    arrays["encoder/layer_0/self_attention/linear_1/weight"] = arrays[other]
    quantized = writer.cast(arrays, "int8")
    alias = "encoder/layer_0/self_attention/linear_1/weight"
    del quantized[alias], quantized[f"{alias}_scale"]
    (tmp_path / "model.bin").write_bytes(writer.model_bin(quantized, (*writer.TIED, (alias, other))))
    layers = ctranslate2.load(tmp_path)[1]["backbone"]["encoder"]["layers"]
    np.testing.assert_array_equal(*(layers[i]["self_attn"]["out"]["kernel"] for i in ("0", "1")))


@pytest.mark.parametrize("name", list(SIZES))
def test_the_map_covers_each_published_size(name):
    config = SIZES[name]
    parameters = {path for path, _ in hf_whisper.key_map(config).values()}
    mapped = [path for stacked in ctranslate2.key_map(config).values() for path in stacked]
    assert len(mapped) == len(set(mapped)) and parameters <= set(mapped)
    assert all(path.endswith("attn/k/bias") for path in set(mapped) - parameters)


def without(name):
    return lambda arrays: {key: array for key, array in arrays.items() if key != name}


def changed(name, value):
    return lambda arrays: {**arrays, name: value}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without("encoder/layer_1/ffn/linear_0/bias"), "weights lack encoder/layer_1/ffn/linear_0/bias"),
        (without("decoder/num_heads"), "lacks decoder/num_heads"),
        (without("decoder/embeddings/weight"), "lacks decoder/embeddings/weight"),
        (changed("encoder/extra/weight", np.ones(2, np.float32)), "unknown keys encoder/extra/weight"),
        (changed("decoder/rotary_dim", np.int32(3)), "unknown keys decoder/rotary_dim"),
        (changed("encoder/layer_norm/beta", np.ones(5, np.float32)), r"wrong shape: encoder/layer_norm/beta \(5,\)"),
        (changed("encoder/layer_norm/beta", np.full(16, np.nan, np.float32)), "encoder/layer_norm/beta has numbers"),
        (changed("decoder/activation", np.int8(0)), "decoder/activation is 0; only 3 is supported"),
        (changed("encoder/num_heads", np.int16(5)), "does not divide by encoder_heads"),
        (changed("decoder/layer_0/attention/linear_1/bias", np.ones(32, np.float32)), "a bias of keys"),
        (changed("decoder/projection/weight", np.ones((40, 16), np.float32)), "only tied output matrices"),
        (changed("encoder/conv2/bias", np.ones(16, np.int8)), "is quantized, and there is no encoder/conv2/bias_scale"),
        (changed("encoder/conv2/bias", np.ones(16, np.int32)), "encoder/conv2/bias holds int32"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(params, tmp_path, change, says):
    (tmp_path / "model.bin").write_bytes(writer.model_bin(change(writer.variables(CONFIG, params))))
    with pytest.raises(ValueError, match=says) as raised:
        ctranslate2.load(tmp_path)
    assert "model.bin" in str(raised.value) and "\n" not in str(raised.value)


def test_what_is_no_such_file_is_refused(params, tmp_path):
    whole = writer.model_bin(writer.variables(CONFIG, params))
    broken = {
        "is empty": b"",
        "no CTranslate2 model .version 7": b"\7" + whole[1:],
        "is a TransformerSpec, not a WhisperSpec": writer.model_bin({}, kind="TransformerSpec"),
        "follow on the last name": whole + b"x",
        "cannot stand for nobody": writer.model_bin({}, (("a", "nobody"),)),
        "ends at byte": whole[:-9],
    }
    for says, data in broken.items():
        (tmp_path / "model.bin").write_bytes(data)
        with pytest.raises(ValueError, match=says):
            ctranslate2.load(tmp_path)
    rng = np.random.default_rng(1)
    for end in rng.integers(1, len(whole) - 1, 40):
        (tmp_path / "model.bin").write_bytes(whole[:end])
        with pytest.raises(ValueError, match="ends at byte"):
            ctranslate2_file.read(tmp_path / "model.bin")
    with pytest.raises(FileNotFoundError):
        ctranslate2.load(tmp_path / "nowhere")


def test_hugging_face_weights_win_where_a_folder_has_both(params, tmp_path):
    hf_whisper.save(tmp_path / "m", CONFIG, params)
    (tmp_path / "m" / "model.bin").write_bytes(b"something else")
    assert not whisper_folder.is_ctranslate2(tmp_path / "m")
    same(whisper_folder.load(tmp_path / "m")[1], params)


def test_config_says_what_generation_needs(params, tmp_path):
    folder = writer.write(tmp_path / "m", CONFIG, params, suppress_ids_begin=[7])
    assert whisper_folder.generation(folder) == {
        "alignment_heads": [[0, 1]],
        "suppress_tokens": [1, 2],
        "begin_suppress_tokens": [7],
    }
    assert whisper_folder.alignment_heads(writer.write(tmp_path / "n", CONFIG, params, alignment_heads=None)) is None
    (folder / "preprocessor_config.json").write_text(json.dumps({"feature_size": 80}))
    with pytest.raises(ValueError, match="feature_size is 80; this model needs 128"):
        whisper_folder.load_config(folder)


@pytest.mark.parametrize("vocabulary", ["tokenizer.json", "vocabulary.json", "vocabulary.txt"])
def test_load_gives_the_same_logits_and_text(tmp_path, vocabulary):
    tokenizer = tiny_model.tokenizer(True)
    made, params = tiny_model.make(vocab_size=tokenizer.vocab_size)
    hf_whisper.save(tmp_path / "hf", made, params, tokenizer)
    writer.write(tmp_path / "ct2", made, params, tokenizer, kind="float32", vocabulary=vocabulary)
    theirs, ours = moejax.load(tmp_path / "hf"), moejax.load(tmp_path / "ct2")
    assert ours.timestamps and ours.config == theirs.config and ours.heads == [[0, 1]]
    mel = np.random.default_rng(0).normal(size=(1, 80, 3000)).astype(np.float32)
    for text in (*tiny_model.TEXTS, "Ünd 10:30 — 東京  two blanks"):
        ids = tokenizer.encode(text)
        assert ours.tokenizer.encode(text) == ids and ours.tokenizer.decode(ids) == tokenizer.decode(ids)
    tokens = np.array([[*tokenizer.prefix("en"), *tokenizer.encode("the cat")]])
    np.testing.assert_array_equal(ours.logits(mel, tokens), theirs.logits(mel, tokens))


def test_a_list_of_tokens_that_is_none_is_refused(tmp_path):
    for name, text in (("vocabulary.txt", "a\nb\n"), ("vocabulary.json", '{"a": 1}')):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=f"{name}: no list of Whisper's tokens"):
            Tokenizer.from_hf_folder(tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / "vocabulary.txt").write_text("a\na\n<|endoftext|>\n")
    with pytest.raises(ValueError, match="a token is there twice"):
        Tokenizer.from_hf_folder(tmp_path)


WEIGHTS, CLIP = os.environ.get("MOEJAX_WEIGHTS"), os.environ.get("MOEJAX_CLIP")


@pytest.mark.skipif(
    not (WEIGHTS and CLIP), reason="MOEJAX_WEIGHTS: a folder with tiny.en/ and base/; MOEJAX_CLIP: jfk.flac"
)
@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_published_weights_read_a_published_recording(name, tmp_path):
    folder = Path(WEIGHTS) / name
    assert dataclasses.replace(whisper_folder.load_config(folder), dtype="float32") == SIZES[name]
    recognizer = moejax.load(folder)
    said = " ".join(recognizer.transcribe(CLIP, temperature=0.0).text.replace(",", "").split())
    wanted = "my fellow Americans ask not what your country can do for you ask what you can do for your country"
    assert wanted in said
    suppressed = whisper_folder.generation(folder)["suppress_tokens"]
    assert tuple(suppressed) == recognizer.tokenizer.suppress
    (tmp_path / "vocabulary.txt").symlink_to((folder / "vocabulary.txt").resolve())
    listed = Tokenizer.from_hf_folder(tmp_path)
    for text in (said, "The 10:30  train to Zürich"):
        assert listed.encode(text) == recognizer.tokenizer.encode(text)
