"""Against transformers, an independent implementation, with random weights: nothing is downloaded."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_model
import torch
import transformers

from moejax.convert import hf_settings, hf_whisper
from moejax.decode.greedy import greedy
from moejax.nn import functional
from moejax.nn.variables import Init
from moejax.nn.whisper import SIZES, Whisper, WhisperConfig
from moejax.ops import audio
from moejax.text.tokenizer import Tokenizer

EOT, SOT = 57, 58
SHAPES = {
    "v2": {"num_mel_bins": 80, "vocab_size": 101, "max_source_positions": 100},
    "v3": {"num_mel_bins": 128, "vocab_size": 103, "max_source_positions": 90},
    "lopsided": {"num_mel_bins": 80, "vocab_size": 101, "max_source_positions": 100, "decoder_layers": 1},
}


def build_theirs(**changes):
    sizes = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 128, "decoder_ffn_dim": 96}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 8, "max_target_positions": 32}
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), EOT) | {"decoder_start_token_id": SOT}
    fields = sizes | heads | ids | {"begin_suppress_tokens": None, "suppress_tokens": None} | changes
    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**fields)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Wider than the initialisation (biases and norms too), so that every term matters and tokens vary.
            if "encoder.embed_positions" not in name:
                width = 1.0 if "decoder.embed_positions" in name else 0.1
                parameter += width * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture(scope="module", params=SHAPES)
def pair(request, tmp_path_factory):
    """(transformers' model, our config and params read from its folder, mel of three utterances)."""
    theirs = build_theirs(**SHAPES[request.param])
    folder = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(folder)
    config, params = hf_whisper.load(folder)
    frames = 2 * config.max_source_positions
    mel_BNM = np.random.default_rng(1).normal(0, 1, (3, frames, config.num_mel_bins)).astype(np.float32)
    return theirs, config, params, mel_BNM


@functools.cache
def abstract(config):
    return functional.abstract(lambda: Whisper(config, init=Init(0)))


def graph(config):
    return abstract(config)[0]


def ours(config, params, method, *arguments):
    call = jax.jit(lambda params, *xs: getattr(functional.merge(graph(config), params), method)(*xs))
    return np.asarray(call(params, *map(jnp.asarray, arguments)))


def their_logits(model, mel_BNM, tokens_BL):
    with torch.no_grad():
        features = torch.from_numpy(np.ascontiguousarray(mel_BNM.transpose(0, 2, 1)))
        out = model(input_features=features, decoder_input_ids=torch.from_numpy(tokens_BL).long())
    return out.encoder_last_hidden_state.numpy(), out.logits.numpy()


def test_encoder_states_and_logits(pair):
    theirs, config, params, mel_BNM = pair
    tokens_BL = np.random.default_rng(2).integers(0, config.vocab_size, (3, 9)).astype(np.int32)
    want_states, want_logits = their_logits(theirs, mel_BNM, tokens_BL)
    states_BTD = ours(config, params, "encode", mel_BNM)
    logits_BLV = ours(config, params, "decode", tokens_BL, states_BTD)
    np.testing.assert_allclose(states_BTD, want_states, atol=1e-5)
    np.testing.assert_allclose(logits_BLV, want_logits, atol=1e-5 * max(1.0, np.abs(want_logits).max()))
    assert np.abs(want_states).max() > 0.5 and np.ptp(want_logits) > 1


def test_greedy_tokens(pair):
    theirs, config, params, mel_BNM = pair
    steps, prefix = 20, [SOT, 60, 61]

    @jax.jit
    def decode(params, mel_BNM):
        model = functional.merge(graph(config), params)
        return greedy(model, model.encode(mel_BNM), prefix, max_tokens=steps, eot=EOT)

    found = decode(params, jnp.asarray(mel_BNM))
    # The generate() of the base class: Whisper's own adds its language and timestamp rules.
    with torch.no_grad():
        want_BL = transformers.GenerationMixin.generate(
            theirs,
            input_features=torch.from_numpy(np.ascontiguousarray(mel_BNM.transpose(0, 2, 1))),
            decoder_input_ids=torch.tensor([prefix] * 3),
            generation_config=transformers.GenerationConfig(
                max_new_tokens=steps, do_sample=False, num_beams=1, eos_token_id=EOT, pad_token_id=EOT
            ),
        )[:, len(prefix) :].numpy()
    width = want_BL.shape[1]
    np.testing.assert_array_equal(found.tokens_BL[:, :width], want_BL)
    assert (np.asarray(found.tokens_BL)[:, width:] == EOT).all()
    assert len(np.unique(want_BL)) > 3


@pytest.mark.parametrize("hop,mask_padding", [(160, False), (320, True)])
def test_our_folder_loads_there(tmp_path, hop, mask_padding):
    tokenizer = Tokenizer.train(["the cat sat on the mat"] * 3, 300)
    config = WhisperConfig(
        32, 2, 1, 4, 2, 64, 48, tokenizer.vocab_size, 80, max_source_positions=50, max_target_positions=20, hop=hop
    )
    config = dataclasses.replace(config, mask_padding=mask_padding)
    rng = np.random.default_rng(3)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), abstract(config)[1])
    hf_whisper.save(tmp_path / "m", config, params, tokenizer=tokenizer)
    theirs, report = transformers.WhisperForConditionalGeneration.from_pretrained(
        tmp_path / "m", output_loading_info=True
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    mel_BNM = np.random.default_rng(4).normal(0, 1, (2, 100, 80)).astype(np.float32)
    tokens_BL = np.random.default_rng(5).integers(0, config.vocab_size, (2, 6)).astype(np.int32)
    want_states, want_logits = their_logits(theirs.eval(), mel_BNM, tokens_BL)
    states_BTD = ours(config, params, "encode", mel_BNM)
    np.testing.assert_allclose(states_BTD, want_states, atol=1e-5)
    np.testing.assert_allclose(ours(config, params, "decode", tokens_BL, states_BTD), want_logits, atol=1e-5)

    extractor = transformers.WhisperFeatureExtractor.from_pretrained(tmp_path / "m")
    assert (extractor.hop_length, extractor.feature_size) == (hop, 80)
    processor = transformers.WhisperTokenizerFast.from_pretrained(tmp_path / "m")
    for text in (" the cat", " it's 12 Käse!", " 世界"):
        assert processor(text, add_special_tokens=False).input_ids == tokenizer.encode(text)
        assert processor.decode(tokenizer.encode(text)) == text
    assert processor.eos_token_id == theirs.generation_config.eos_token_id == tokenizer.eot
    assert len(processor) == tokenizer.vocab_size


def test_times_of_segments_and_tokens_there(tmp_path):
    """What our folder says about generation is enough for `generate` with timestamps, and with alignment heads."""
    tokenizer = tiny_model.tokenizer(True)
    config, params = tiny_model.make(timed=True, vocab_size=tokenizer.vocab_size)
    hf_whisper.save(tmp_path / "m", config, params, tokenizer, generation={"alignment_heads": [[0, 1]]})
    theirs = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "m").eval()
    known = theirs.generation_config
    assert (known.prev_sot_token_id, known.alignment_heads) == (tokenizer.sot_prev, [[0, 1]])
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(tmp_path / "m")
    sound = tiny_model.sound(40.0)
    heard = extractor(
        sound, sampling_rate=16000, return_tensors="pt", truncation=False, padding="longest", return_attention_mask=True
    )
    options = {"language": "en", "task": "transcribe", "max_new_tokens": 16, "do_sample": False}
    prompt = torch.tensor([tokenizer.sot_prev, *tokenizer.encode("the cat")])
    found = theirs.generate(**heard, **options, return_timestamps=True, return_segments=True, prompt_ids=prompt)
    assert max(segment["end"] for segment in found["segments"][0]) > 30.0
    words = theirs.generate(heard["input_features"][:, :, :3000], **options, return_token_timestamps=True)
    times = words["token_timestamps"][0]
    assert times.shape == words["sequences"][0].shape and times.min() >= 0 and 0 < times.max() <= 30.0


@pytest.mark.parametrize("n_mels,hop", [(80, 160), (128, 160), (80, 320)])
def test_log_mel_in_both_precisions(n_mels, hop):
    extractor = transformers.WhisperFeatureExtractor(feature_size=n_mels, hop_length=hop, chunk_length=2)
    rng = np.random.default_rng(6)
    time = np.arange(32000) / 16000
    tone = 0.3 * np.sin(2 * np.pi * (200 + 900 * time) * time) * np.exp(-2 * time) + rng.normal(0, 1e-3, 32000)
    tone[20000:] = 0.0  # padding
    audio_BS = np.stack([tone, rng.normal(0, 0.1, 32000)]).astype(np.float32)
    mel_BNM = np.asarray(jax.jit(audio.log_mel, static_argnames=("n_mels", "hop"))(audio_BS, n_mels=n_mels, hop=hop))
    single_BMN = extractor._torch_extract_fbank_features(audio_BS)
    double_BMN = extractor._np_extract_fbank_features(audio_BS, "cpu")
    np.testing.assert_allclose(mel_BNM, single_BMN.transpose(0, 2, 1), atol=5e-5)
    np.testing.assert_allclose(mel_BNM, double_BMN.transpose(0, 2, 1), atol=5e-5)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_mel_filters(n_mels):
    slaney = {"norm": "slaney", "mel_scale": "slaney"}
    want_FM = transformers.audio_utils.mel_filter_bank(201, n_mels, 0.0, 8000.0, 16000, **slaney)
    np.testing.assert_allclose(audio.mel_filters(n_mels), want_FM.T, atol=1e-8)


RELEASED = {"tiny": 37_760_640, "base": 72_593_920, "small": 241_734_912, "medium": 763_857_920}
RELEASED |= {"large": 1_543_304_960, "large-v2": 1_543_304_960, "large-v3": 1_543_490_560}


@pytest.mark.parametrize("name", [name for name in SIZES if not name.startswith("micro")])
def test_published_sizes_build(name):
    """Every size builds abstractly with the names, shapes and number of parameters of transformers' model of that size.

    RELEASED are the totals of the released checkpoints, sinusoids included.
    """
    config = SIZES[name]
    params = abstract(config)[1]
    fields = {theirs: getattr(config, mine) for mine, theirs in hf_settings.FIELDS.items()}
    with torch.device("meta"):
        theirs = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**fields))
    shapes = {key: tuple(value.shape) for key, value in theirs.state_dict().items() if key != "proj_out.weight"}
    places = hf_whisper.key_map(config)
    assert shapes == {key: shape for key, (_, shape) in places.items()}
    assert functional.paths(params).keys() == {path for path, _ in places.values()}
    total = functional.count(params)
    assert total == sum(parameter.numel() for parameter in theirs.parameters()) == RELEASED.get(name, total)
