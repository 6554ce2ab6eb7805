"""The JSON files beside the weights of a Hugging Face folder: config, generation, preprocessor."""

import ml_dtypes  # noqa: F401  (gives numpy the name "bfloat16")

from moejax.audio.constants import N_FFT, SAMPLE_RATE, STRIDE

FIELDS = {  # ours: theirs
    "d_model": "d_model",
    "encoder_layers": "encoder_layers",
    "decoder_layers": "decoder_layers",
    "encoder_heads": "encoder_attention_heads",
    "decoder_heads": "decoder_attention_heads",
    "encoder_ffn": "encoder_ffn_dim",
    "decoder_ffn": "decoder_ffn_dim",
    "vocab_size": "vocab_size",
    "num_mel_bins": "num_mel_bins",
    "max_source_positions": "max_source_positions",
    "max_target_positions": "max_target_positions",
}
FIXED = {"model_type": "whisper", "activation_function": "gelu", "scale_embedding": False, "tie_word_embeddings": True}
_PUBLISHED_EOT = {51864: 50256, 51865: 50257, 51866: 50257}


def config_json(config, tokenizer, dtype, extra):
    return {
        **FIXED,
        **{theirs: getattr(config, name) for name, theirs in FIELDS.items()},
        **_token_ids(config, tokenizer),
        "architectures": ["WhisperForConditionalGeneration"],
        "is_encoder_decoder": True,
        "num_hidden_layers": config.encoder_layers,
        "dtype": dtype,
        "moejax": {"hop": config.hop, "mask_padding": config.mask_padding, **extra},
    }


def generation_json(config, tokenizer):
    """What transformers' generate() needs to know about the vocabulary."""
    known = {"max_length": config.max_target_positions, "return_timestamps": False, **_token_ids(config, tokenizer)}
    if tokenizer is None:
        return known
    known |= {
        "is_multilingual": tokenizer.is_multilingual,
        "no_timestamps_token_id": tokenizer.no_timestamps,
        "prev_sot_token_id": tokenizer.sot_prev,
        "max_initial_timestamp_index": 50,
        "suppress_tokens": list(tokenizer.suppress),
        "begin_suppress_tokens": list(tokenizer.begin_suppress),
    }
    if tokenizer.is_multilingual:
        language = tokenizer.languages[0]
        known["lang_to_id"] = {f"<|{code}|>": tokenizer.language_id(code) for code in tokenizer.languages}
        known["task_to_id"] = {task: tokenizer.prefix(language, task)[2] for task in ("transcribe", "translate")}
    return known


def _token_ids(config, tokenizer) -> dict[str, int | None]:
    """Control-token ids, from the tokenizer or else from the size of a published vocabulary; null where unknown."""
    eot = _PUBLISHED_EOT.get(config.vocab_size) if tokenizer is None else tokenizer.eot
    ids: dict[str, int | None] = {f"{name}_token_id": eot for name in ("bos", "eos", "pad")}
    if eot is None:
        return ids
    return {**ids, "decoder_start_token_id": eot + 1 if tokenizer is None else tokenizer.sot}


def preprocessor_json(config):
    samples = config.max_source_positions * STRIDE * config.hop
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": config.num_mel_bins,
        "hop_length": config.hop,
        "chunk_length": -(-samples // SAMPLE_RATE),
        "n_fft": N_FFT,
        "n_samples": samples,
        "nb_max_frames": samples // config.hop,
        "padding_side": "right",
        "padding_value": 0.0,
        "processor_class": "WhisperProcessor",
        "return_attention_mask": False,
        "sampling_rate": SAMPLE_RATE,
    }
