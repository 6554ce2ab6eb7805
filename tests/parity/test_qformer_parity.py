"""The Q-Former against transformers' BertModel with cross-attention, fed with the queries."""

import dataclasses

import jax
import numpy as np
import tiny_llama as tiny
import torch
import transformers

from moejax.nn import functional
from moejax.nn.connectors import BERT, QFormer
from moejax.nn.variables import Init

CONFIG, HEARD = dataclasses.replace(tiny.CONNECTOR, heads=2), 10


def bert():
    config = transformers.BertConfig(
        vocab_size=3,
        hidden_size=CONFIG.width,
        num_hidden_layers=CONFIG.layers,
        num_attention_heads=CONFIG.heads,
        intermediate_size=CONFIG.ffn,
        layer_norm_eps=BERT,
        is_decoder=True,
        add_cross_attention=True,
        attn_implementation="eager",
    )
    made = transformers.BertModel(config, add_pooling_layer=False).eval()
    for layer in made.encoder.layer:  # a Q-Former's keys and values are of what is heard, whose width is its own
        for name in ("key", "value"):
            setattr(layer.crossattention.self, name, torch.nn.Linear(HEARD, CONFIG.width))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_((parameter.ndim < 2) + 0.4 * torch.randn(parameter.shape, generator=generator))
    return made


def ours(model, query_QD):
    """Our tree of their arrays."""
    flat = {"queries": query_QD}

    def put(path, layer):
        kind = "scale" if layer.weight.ndim == 1 else "kernel"
        flat[f"{path}/{kind}"] = layer.weight.detach().numpy().T
        flat[f"{path}/bias"] = layer.bias.detach().numpy()

    put("norm", model.embeddings.LayerNorm)
    for n, layer in enumerate(model.encoder.layer):
        for name, part in (("self_attn", layer.attention), ("cross_attn", layer.crossattention)):
            for short, long in (("q", "query"), ("k", "key"), ("v", "value")):
                put(f"layers/{n}/{name}/{short}", getattr(part.self, long))
            put(f"layers/{n}/{name}/out", part.output.dense)
            put(f"layers/{n}/{name}/norm", part.output.LayerNorm)
        put(f"layers/{n}/fc1", layer.intermediate.dense)
        put(f"layers/{n}/fc2", layer.output.dense)
        put(f"layers/{n}/norm", layer.output.LayerNorm)
    return flat


def test_it_is_bert_with_cross_attention():
    rng, model = np.random.default_rng(0), bert()
    query_QD = rng.normal(size=(1, CONFIG.width)).astype(np.float32)
    heard_BSD = rng.normal(size=(3, 5, HEARD)).astype(np.float32)
    flat = ours(model, query_QD)
    graphdef, params = functional.split(QFormer(CONFIG, HEARD, init=Init(0)))
    assert set(flat) == set(functional.paths(params["head"]))
    run = jax.jit(lambda params, x: functional.merge(graphdef, params)(x))
    found = run({"head": functional.nest(flat)}, heard_BSD)
    with torch.no_grad():
        x = model.embeddings.LayerNorm(torch.tensor(query_QD)[None].expand(3, -1, -1))
        options = {"encoder_hidden_states": torch.tensor(heard_BSD), "encoder_attention_mask": None}
        for layer in model.encoder.layer:
            x = layer(x, **options)
            x = x[0] if isinstance(x, tuple) else x
    assert x.abs().max() > 0.5
    np.testing.assert_allclose(found, x.numpy(), atol=1e-4)
    moved = run({"head": functional.nest(flat)}, heard_BSD[::-1].copy())
    assert np.abs(np.asarray(moved) - x.numpy()).max() > 1e-2  # a control
