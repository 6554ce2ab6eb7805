"""OpenAI checkpoints: exact round trips, every key accounted for, and no silent change of what a model computes."""

import dataclasses
import types

import ml_dtypes
import numpy as np
import pytest

from moejax.convert import hf_whisper, openai_whisper, torch_file
from moejax.nn import functional
from moejax.nn.variables import Init
from moejax.nn.whisper import SIZES, Whisper, WhisperConfig
from moejax.text.tokenizer import Tokenizer

CONFIG = WhisperConfig(8, 2, 1, 2, 2, 32, 32, 51865, num_mel_bins=80, max_source_positions=30, max_target_positions=12)


@pytest.fixture(scope="module")
def params():
    _, abstract = functional.abstract(lambda: Whisper(CONFIG, init=Init(0)))
    rng = np.random.default_rng(0)
    flat = {path: rng.normal(size=leaf.shape).astype(np.float32) for path, leaf in functional.paths(abstract).items()}
    return functional.nest(flat)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, params):
    path = tmp_path_factory.mktemp("openai") / "tiny.pt"
    openai_whisper.save(path, CONFIG, params, dtype="float32")
    return path


def same(a, b, dtype=np.float32):
    a, b = functional.paths(a), functional.paths(b)
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_array_equal(a[path], b[path].astype(dtype).astype(np.float32), err_msg=path)


def test_round_trip_is_exact(saved, params):
    config, again = openai_whisper.load(saved)
    assert config == CONFIG
    same(again, params)
    leaves = functional.paths(again).values()
    assert {leaf.dtype for leaf in leaves} == {np.dtype("float32")}
    assert all(leaf.flags.c_contiguous and leaf.flags.writeable for leaf in leaves)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_both_ways(tmp_path, params, dtype):
    openai_whisper.save(tmp_path / "x.pt", CONFIG, params, dtype=dtype)
    state = torch_file.read(tmp_path / "x.pt")["model_state_dict"]
    assert {str(tensor.dtype) for tensor in state.values()} == {dtype}
    same(openai_whisper.load(tmp_path / "x.pt")[1], params, ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    assert openai_whisper.load(tmp_path / "x.pt", dtype=dtype)[1]["backbone"]["decoder"]["embed"].dtype == dtype


def test_a_number_beyond_float16_is_an_error_not_an_infinity(tmp_path, params):
    flat = functional.paths(params)
    scale = functional.nest({**flat, "backbone/decoder/embed": flat["backbone/decoder/embed"] * 1e6})
    with pytest.raises(ValueError, match="embed_tokens.*float16.*bfloat16"):
        openai_whisper.save(tmp_path / "x.pt", CONFIG, scale, dtype="float16")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["tiny.en", "base", "large-v3-turbo"])
def test_the_map_covers_published_sizes(name):
    _, abstract = functional.abstract(lambda: Whisper(SIZES[name], init=Init(0)))
    places = openai_whisper.key_map(SIZES[name])
    assert {place for place, _ in places.values()} == functional.paths(abstract).keys()
    assert len(places) == len(hf_whisper.key_map(SIZES[name]))


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("decoder.extra", lambda a: np.zeros(1, np.float32), "unknown keys decoder.extra"),
        ("decoder.blocks.0.cross_attn.query.bias", lambda a: None, "lack decoder.blocks.0.cross_attn.query.bias"),
        ("encoder.ln_post.bias", lambda a: a[:3], r"encoder.ln_post.bias \(3,\), want \(8,\)"),
        ("decoder.blocks.0.attn.key.bias", lambda a: np.zeros(8, np.float32), "unknown keys .*key.bias"),
    ],
)
def test_every_key_is_accounted_for(tmp_path, saved, key, change, message):
    checkpoint = torch_file.read(saved)
    state = dict(checkpoint["model_state_dict"])
    state[key] = change(state.get(key))
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    torch_file.write(tmp_path / "x.pt", {**checkpoint, "model_state_dict": state})
    with pytest.raises(ValueError, match=message) as error:
        openai_whisper.load(tmp_path / "x.pt")
    assert "\n" not in str(error.value) and "x.pt" in str(error.value)


def test_other_checkpoints_are_named(tmp_path):
    for value, message in (
        ({"state_dict": {}}, "no OpenAI Whisper checkpoint"),
        (("a",), "no OpenAI Whisper checkpoint"),
        ({"dims": {"n_mels": 80}, "model_state_dict": {}}, "dims must be a dict of n_mels, n_audio_ctx"),
    ):
        torch_file.write(tmp_path / "x.pt", value)
        with pytest.raises(ValueError, match=message):
            openai_whisper.load(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hop": 320}, "mel hop of 320"),
        ({"mask_padding": True}, "masked padding"),
        ({"decoder_ffn": 48}, "feed-forward"),
        ({"vocab_size": 600}, "vocabulary"),
    ],
)
def test_what_the_format_cannot_say_is_refused(tmp_path, params, changes, message):
    with pytest.raises(ValueError, match=f"cannot express this model: .*{message}"):
        openai_whisper.save(tmp_path / "x.pt", dataclasses.replace(CONFIG, **changes), params)
    assert list(tmp_path.iterdir()) == []


def test_a_vocabulary_of_ones_own_is_refused(tmp_path, params):
    tokenizer = Tokenizer.train(["the cat sat"] * 3, 300)
    with pytest.raises(ValueError, match="vocabulary other than the published ones"):
        openai_whisper.save(tmp_path / "x.pt", CONFIG, params, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("size", "file", "multilingual", "languages"),
    [
        (51864, "gpt2.tiktoken", False, 99),
        (51865, "multilingual.tiktoken", True, 99),
        (51866, "multilingual.tiktoken", True, 100),
    ],
)
def test_the_vocabulary_follows_from_the_size(tmp_path, size, file, multilingual, languages):
    config = dataclasses.replace(CONFIG, vocab_size=size)
    with pytest.raises(FileNotFoundError, match=file) as error:
        openai_whisper.vocabulary(tmp_path / "x.pt", config, given=tmp_path / "elsewhere")
    assert str(tmp_path / "elsewhere") in str(error.value)
    (tmp_path / file).write_text("")
    found = openai_whisper.Vocabulary(tmp_path / file, multilingual, languages)
    assert openai_whisper.vocabulary(tmp_path / "x.pt", config) == found
    for given in (tmp_path, tmp_path / file):
        assert openai_whisper.vocabulary("elsewhere/x.pt", config, given=given) == found


def test_a_vocabulary_in_hugging_face_files(tmp_path):
    tokenizer = Tokenizer.train(["the cat sat"] * 3, 300)
    tokenizer.save(tmp_path)
    found = openai_whisper.vocabulary(tmp_path / "x.pt", CONFIG).open()
    assert found.encode("the cat") == tokenizer.encode("the cat")
    with pytest.raises(ValueError, match="300 tokens is no published vocabulary"):
        openai_whisper.vocabulary(tmp_path / "x.pt", dataclasses.replace(CONFIG, vocab_size=300))


@pytest.mark.parametrize(("listed", "refused"), [(51865, False), (50364, False), (50363, True)])
def test_a_vocabulary_may_leave_its_timestamps_out(listed, refused):
    """Several published folders do: their tokenizer.json ends with <|notimestamps|>."""
    ids = {"the": [264], "world": [1002]}
    tokenizer = types.SimpleNamespace(
        vocab_size=listed, is_multilingual=True, eot=50257, timestamp_begin=50364, encode=ids.__getitem__
    )
    config = dataclasses.replace(CONFIG, encoder_ffn=4 * CONFIG.d_model, decoder_ffn=4 * CONFIG.d_model)
    if refused:
        with pytest.raises(ValueError, match="a vocabulary other than the published ones"):
            openai_whisper.check(config, tokenizer)
    else:
        openai_whisper.check(config, tokenizer)
