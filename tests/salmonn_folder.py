"""Files of the parts of SALMONN in their published layouts, tiny."""

import json

import llama_folder
import numpy as np
import tiny_llama as tiny
import tokenizers

from moejax.convert import beats, hf_whisper, salmonn, torch_file
from moejax.nn import functional
from moejax.nn.variables import Init
from moejax.nn.whisper import Whisper

RANK = 2


def beats_cfg(config):
    found = {theirs: getattr(config, ours) for ours, (theirs, _) in beats.FIELDS.items()}
    found |= {"deep_norm": True, "relative_position_embedding": True, "gru_rel_pos": True, "dropout": 0.0}
    return found | {"finetuned_model": True, "predictor_class": 3}


CFG = beats_cfg(tiny.BEATS)


def drawn(places, seed):
    rng = np.random.default_rng(seed)
    return {key: rng.normal(size=shape).astype(np.float32) for key, (_, shape) in places.items()}


def beats_file(path, cfg=CFG, config=tiny.BEATS, **changes):
    model = drawn(beats.key_map(config), 1)
    shared = "encoder.layers.{}.self_attn.relative_attention_bias.weight"
    model |= {shared.format(layer): model[shared.format(0)] for layer in range(config.layers)}
    model |= {"predictor.weight": np.ones((3, 16), np.float32), "predictor.bias": np.ones(3, np.float32)}
    model |= changes
    torch_file.write(path, {"cfg": cfg, "model": {key: x for key, x in model.items() if x is not None}})
    return model


def salmonn_file(path, config=tiny.AUDIO, **changes):
    model = drawn(salmonn.key_map(config, RANK), 2)
    model["speech_Qformer.bert.embeddings.position_ids"] = np.arange(4)[None]
    model["llama_model.base_model.model.model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2, np.float32)
    model |= changes
    torch_file.write(path, {"model": {key: x for key, x in model.items() if x is not None}, "epoch": 3})
    return model


def whisper_folder(path):
    _, abstract = functional.abstract(lambda: Whisper(tiny.WHISPER, init=Init(0)))
    params = tiny.drawn({group: abstract[group] for group in ("backbone", "buffer")})
    hf_whisper.save(path, tiny.WHISPER, params)


def words(folder, vocab):
    """tokenizer.json of whole words, as transformers writes it, with the names of its special tokens."""
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["<s>", "</s>"])
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": {"content": "<s>"}, "eos_token": "</s>"}))


def write(folder, config=tiny.AUDIO):
    """The whole model as `moejax ask` takes it."""
    whisper_folder(folder / "whisper")
    arrays = llama_folder.tensors(config.llama)
    llama_folder.write_shards(folder / "llama", arrays, "safetensors", num_hidden_layers=config.llama.layers)
    words(folder / "llama", {word: n for n, word in enumerate(["<unk>", "<s>", "</s>", *map("w{}".format, range(37))])})
    beats_file(folder / "BEATs_iter3.pt", beats_cfg(config.sounds), config.sounds)
    salmonn_file(folder / "salmonn_v1.pth", config)
    return folder
