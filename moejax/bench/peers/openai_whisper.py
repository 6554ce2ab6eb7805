"""openai-whisper, the reference implementation: log-mel in both of its forms, and greedy decoding."""

import dataclasses
import json
from pathlib import Path

import safetensors.torch
import torch
import whisper

from moejax.bench import inputs
from moejax.bench.peers import torch_device as device
from moejax.bench.worker import Job, serve

_BLOCK = {  # Hugging Face: OpenAI
    "self_attn.q_proj": "attn.query",
    "self_attn.k_proj": "attn.key",
    "self_attn.v_proj": "attn.value",
    "self_attn.out_proj": "attn.out",
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn.q_proj": "cross_attn.query",
    "encoder_attn.k_proj": "cross_attn.key",
    "encoder_attn.v_proj": "cross_attn.value",
    "encoder_attn.out_proj": "cross_attn.out",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "final_layer_norm": "mlp_ln",
}
_AROUND = {
    "encoder.layer_norm": "encoder.ln_post",
    "decoder.layer_norm": "decoder.ln",
    "encoder.embed_positions.weight": "encoder.positional_embedding",
    "decoder.embed_positions.weight": "decoder.positional_embedding",
    "decoder.embed_tokens": "decoder.token_embedding",
}


def load(folder) -> whisper.Whisper:
    """Their model with the folder's weights; `load_state_dict` is strict, so that nothing is left out."""
    sizes = json.loads(Path(folder, "config.json").read_text())
    dims = whisper.ModelDimensions(
        n_mels=sizes["num_mel_bins"],
        n_audio_ctx=sizes["max_source_positions"],
        n_audio_state=sizes["d_model"],
        n_audio_head=sizes["encoder_attention_heads"],
        n_audio_layer=sizes["encoder_layers"],
        n_vocab=sizes["vocab_size"],
        n_text_ctx=sizes["max_target_positions"],
        n_text_state=sizes["d_model"],
        n_text_head=sizes["decoder_attention_heads"],
        n_text_layer=sizes["decoder_layers"],
    )
    model = whisper.Whisper(dims)
    tensors = safetensors.torch.load_file(Path(folder, "model.safetensors"))
    model.load_state_dict({renamed(key): tensor for key, tensor in tensors.items()})
    return model.to(device.DEVICE).eval()


def renamed(key: str) -> str:
    """OpenAI's name of a Hugging Face key."""
    side, _, rest = key.removeprefix("model.").partition(".")
    if rest.startswith("layers."):
        _, number, name = rest.split(".", 2)
        layer, _, last = name.rpartition(".")
        return f"{side}.blocks.{number}.{_BLOCK[layer]}.{last}"
    for theirs, ours in _AROUND.items():
        if f"{side}.{rest}".startswith(theirs):
            return f"{side}.{rest}".replace(theirs, ours)
    return f"{side}.{rest}"


def mel_each(options) -> Job:
    """One utterance after the other, each with the maximum of its own: what `moejax` computes too."""
    audio = device.place(inputs.audio(options["batch"], options["seconds"]))

    def run():
        rows = [whisper.log_mel_spectrogram(row, n_mels=options["bins"]) for row in audio]
        return device.finish(torch.stack(rows))

    return Job(run, _frames_first)


def mel_batch(options) -> Job:
    """The whole batch in one call, with one maximum over all of it: another result, sometimes faster."""
    audio = device.place(inputs.audio(options["batch"], options["seconds"]))
    return Job(lambda: device.finish(whisper.log_mel_spectrogram(audio, n_mels=options["bins"])), _frames_first)


def _frames_first(mel_BMN):
    return device.numbers(mel_BMN).transpose(0, 2, 1)


def greedy(options) -> Job:
    """`whisper.decode` of features to a fixed number of tokens: the end token is suppressed."""
    model = load(options["folder"])
    fp16 = options.get("dtype", "float32") != "float32" and device.DEVICE == "cuda"  # the only half that it has
    mel = device.place(inputs.mel(options["batch"], options["seconds"], options["bins"]).transpose(0, 2, 1).copy())
    settings = whisper.DecodingOptions(
        language="en",
        without_timestamps=True,
        sample_len=options["tokens"],
        suppress_blank=False,
        suppress_tokens=list(options["suppress"]),
        fp16=fp16,
    )

    def run():
        # The options are copied because their list of suppressed tokens is added to in place.
        fresh = dataclasses.replace(settings, suppress_tokens=list(options["suppress"]))
        return device.finish(whisper.decode(model, mel, fresh))

    return Job(run, lambda results: [result.tokens for result in results])


JOBS = {"mel_each": mel_each, "mel_batch": mel_batch, "greedy": greedy}

if __name__ == "__main__":
    device.use_all_cores()
    serve(JOBS, lambda: device.hello("openai-whisper"))
