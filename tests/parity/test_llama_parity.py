"""LLaMA against transformers' LlamaForCausalLM with random weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from moejax.nn import functional
from moejax.nn.llama import Llama, LlamaConfig
from moejax.nn.variables import Init

SHAPES = {
    "grouped": LlamaConfig(32, 2, 4, 2, 48, 60, theta=500.0, epsilon=1e-5),
    "tied": LlamaConfig(32, 1, 4, 4, 48, 60, head_width=12, tied=True),
    "stretched": LlamaConfig(32, 1, 4, 1, 48, 60, stretch=4.0),
}


def theirs(config):
    rope = {"rope_type": "default", "rope_theta": config.theta}
    if config.stretch != 1:
        rope |= {"rope_type": "linear", "factor": config.stretch}
    made = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            intermediate_size=config.ffn,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.key_heads,
            head_dim=config.width,
            rms_norm_eps=config.epsilon,
            rope_parameters=rope,
            tie_word_embeddings=config.tied,
            attn_implementation="eager",
        )
    ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return made


PARTS = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "out"}
PARTS |= {"gate_proj": "gate", "up_proj": "up", "down_proj": "down"}


def ours(model):
    """Our tree of their arrays, written here and not by the product's converter."""
    flat = {}
    for key, array in model.state_dict().items():
        names = [PARTS.get(name, name) for name in key.removeprefix("model.").removesuffix(".weight").split(".")]
        path = (
            "/".join(names).replace("input_layernorm", "self_attn_norm").replace("post_attention_layernorm", "mlp_norm")
        )
        path = path.replace("embed_tokens", "embed").replace("lm_head", "head")
        kind = "" if path == "embed" else "/scale" if "norm" in path else "/kernel"
        flat[path + kind] = jnp.asarray(array.numpy().T if kind == "/kernel" else array.numpy())
    return flat


@pytest.mark.parametrize("name", SHAPES)
def test_logits(name):
    config, model = SHAPES[name], theirs(SHAPES[name])
    flat = ours(model)
    if config.tied:
        del flat["head/kernel"]
    tokens_BL = np.random.default_rng(0).integers(0, config.vocab_size, (2, 9))
    found = logits(config, flat, tokens_BL)
    with torch.no_grad():
        want = model(torch.tensor(tokens_BL)).logits.numpy()
    assert np.abs(want).max() > 0.5
    np.testing.assert_allclose(found, want, atol=1e-4)
    if name == "grouped":  # a control
        other = dataclasses.replace(config, stretch=2.0)
        assert np.abs(logits(other, flat, tokens_BL) - want).max() > 1e-3


def logits(config, flat, tokens_BL):
    graphdef, params = functional.split(Llama(config, init=Init(0)))
    assert set(flat) == set(functional.paths(params["backbone"]))
    run = jax.jit(lambda params: functional.merge(graphdef, params)(jnp.asarray(tokens_BL)))
    return np.asarray(run({"backbone": functional.nest(flat)}))
