"""Every attention, normalisation and gate of the diarizers against torch, with the same weights: at most 1e-5 apart.

Attention over frames is torch's own, the LSTM too; FAVOR+, ReZero, ScaleNorm, the gated units and rotary positions are
written out in torch after performer-pytorch's definitions (that package is not needed).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from moejax.nn import diarizers, functional, performer
from moejax.nn.ego import EgoNet, EgoSizes
from moejax.nn.variables import Init
from moejax.ops import favor

B, T, S, D, H = 2, 11, 7, 12, 3
KIND = performer.Kind(D, H, 10, rotary=True)
X_BTD = np.random.default_rng(0).normal(size=(B, T, D)).astype(np.float32)
STATES_BSD = np.random.default_rng(1).normal(size=(B, S, D)).astype(np.float32)
MASK_BT, MASK_BS = (np.arange(size)[None] < np.array([[size], [size - 3]]) for size in (T, S))


def built(module, call=lambda net, *x: net(*x), seed=2):
    """(`run(*x)` compiled, its weights as torch tensors by path), every weight moved: no norm is the identity."""
    graphdef, params = functional.split(module)
    params = functional.materialise(params)
    rng = np.random.default_rng(seed)
    params = {
        **params,
        "backbone": jax.tree.map(
            lambda leaf: leaf + rng.normal(0, 0.2, leaf.shape).astype(np.float32), params["backbone"]
        ),
    }
    run = jax.jit(lambda *x: call(functional.merge(graphdef, params), *x))
    groups = [params[group] for group in ("backbone", "buffer") if group in params]
    found = {path: leaf for group in groups for path, leaf in functional.paths(group).items()}
    return run, {path: torch.from_numpy(np.array(leaf)) for path, leaf in found.items()}


def under(weights, name):
    return {path[len(name) + 1 :]: leaf for path, leaf in weights.items() if path.startswith(f"{name}/")}


def tensor(x):
    return None if x is None else torch.from_numpy(np.array(x))


def close(found, wanted):
    np.testing.assert_allclose(np.asarray(found), wanted.detach().numpy(), rtol=0, atol=1e-5)


def linear(w, name, x):
    return F.linear(x, w[f"{name}/kernel"].T, w.get(f"{name}/bias"))


def heads_of(x):
    """[B, H, T, K]"""
    return x.unflatten(-1, (H, -1)).transpose(1, 2)


def features(x, projection, *, query, mask=None, stable=True):
    """Softmax features of [B, H, T, K] (performer-pytorch's `softmax_kernel`); masked keys have none."""
    dash = (x * x.shape[-1] ** -0.25) @ projection.T
    half = (x**2).sum(-1, keepdim=True) * x.shape[-1] ** -0.5 / 2
    top = torch.zeros(())
    if query:
        top = dash.amax(-1, keepdim=True)
    elif stable:
        shown = dash if mask is None else dash.masked_fill(~mask[:, None, :, None], -torch.inf)
        top = shown.amax((-1, -2), keepdim=True)
    found = projection.shape[0] ** -0.5 * (torch.exp(dash - half - top) + 1e-4)
    return found if mask is None else found * mask[:, None, :, None]


def attended(kind, q, k, v, projection=None, mask=None):
    """Attention output of [B, H, T, K] by its definition, causal ones frame by frame."""
    if kind in ("softmax", "causal"):
        seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril() if kind == "causal" else torch.tensor(True)
        seen = seen if mask is None else seen & mask[:, None, None, :]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen.expand(len(q), 1, q.shape[2], k.shape[2]))
    causal = kind == "causal_linear"
    q, k = features(q, projection, query=True), features(k, projection, query=False, mask=mask, stable=not causal)
    if not causal:
        context, total = k.transpose(-1, -2) @ v, k.sum(-2)
        return (q @ context) / (q @ total[..., None])
    context, total, out = 0.0, 0.0, []
    for t in range(q.shape[2]):  # recurrent
        context, total = context + k[:, :, t, :, None] * v[:, :, t, None], total + k[:, :, t]
        now = q[:, :, t, None]
        out.append((now @ context) / (now @ total[..., None]))
    return torch.cat(out, dim=2)


def rotated(x):
    """Pairs of [B, H, T, K] as complex numbers that turn."""
    K = x.shape[-1]
    angle = torch.arange(x.shape[2])[:, None] * 1e4 ** (-torch.arange(0, K, 2) / K)
    turned = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * torch.polar(torch.ones(angle.shape), angle)
    return torch.view_as_real(turned).flatten(-2)


def attention(w, kind, x, states=None, mask=None, rotary=False):
    heard = x if states is None else states
    q, k, v = (heads_of(linear(w, name, of)) for name, of in (("q", x), ("k", heard), ("v", heard)))
    if rotary:
        q, k = rotated(q), rotated(k)
    out = attended(kind, q, k, v, w.get("projection"), mask)
    return linear(w, "out", out.transpose(1, 2).flatten(2))


UNITS = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "glu": lambda x: F.glu(x.roll(x.shape[-1] // 2, -1)),  # torch's second half is the gate, performer's the first
    "reglu": lambda x: F.relu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1],
    "geglu": lambda x: F.gelu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1],
    "swiglu": lambda x: F.silu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1],
}


def around(w, norm, x, part):
    if norm == "rezero":
        return x + part(x) * w["gain"]
    if norm == "layer":
        return x + part(F.layer_norm(x, x.shape[-1:], w["norm/scale"], w["norm/bias"]))
    return x + part(F.normalize(x, dim=-1, eps=1e-5) * w["norm/scale"])


def performer_layer(w, kind, x, mask, states=None, states_mask=None):
    own = kind.attention
    x = around(
        under(w, "around"), kind.norm, x, lambda y: attention(under(w, "attention"), own, y, None, mask, kind.rotary)
    )
    if states is not None:
        whole = {"causal": "softmax", "causal_linear": "linear"}.get(own, own)
        x = around(
            under(w, "around_cross"),
            kind.norm,
            x,
            lambda y: attention(under(w, "cross"), whole, y, states, states_mask),
        )
    ffn = under(w, "ffn")
    return around(
        under(w, "around_ffn"),
        kind.norm,
        x,
        lambda y: linear(ffn, "fc2", UNITS[kind.activation](linear(ffn, "fc1", y))),
    )


@pytest.mark.parametrize("kind", performer.ATTENTIONS)
@pytest.mark.parametrize("norm", performer.NORMS)
def test_performer_layers(kind, norm):
    kind = dataclasses.replace(KIND, attention=kind, norm=norm)
    run, w = built(performer.PerformerLayer(kind, cross=True, init=Init(0)))
    wanted = performer_layer(w, kind, *map(tensor, (X_BTD, MASK_BT, STATES_BSD, MASK_BS)))
    close(run(X_BTD, MASK_BT, STATES_BSD, MASK_BS), wanted)
    if "causal" in kind.attention:  # a control: the layer that sees everything is another one
        whole = dataclasses.replace(kind, attention="linear" if "linear" in kind.attention else "softmax")
        own, other = (performer_layer(w, one, *map(tensor, (X_BTD, MASK_BT))) for one in (kind, whole))
        assert (own - other).abs().max() > 1e-4


@pytest.mark.parametrize("name", performer.ACTIVATIONS)
def test_feed_forward_units(name):
    run, w = built(performer.FeedForward(dataclasses.replace(KIND, activation=name), init=Init(0)))
    close(run(X_BTD), linear(w, "fc2", UNITS[name](linear(w, "fc1", tensor(X_BTD)))))


def test_the_causal_attention_in_chunks_is_the_recurrent_one():
    rng = np.random.default_rng(3)
    q, k, v = (rng.normal(size=(1, T, H, 4)).astype(np.float32) for _ in range(3))
    projection = favor.projection(jax.random.key(0), 9, 4)
    wanted = attended("causal_linear", *(tensor(x).transpose(1, 2) for x in (q, k, v)), tensor(projection))
    wanted = wanted.transpose(1, 2)
    for chunk in (1, 4, T, 128):
        close(favor.attend_linear_causal(q, k, v, projection, chunk=chunk), wanted)
    carry, found = (jnp.zeros((H, 9)), jnp.zeros((H, 9, 4))), []
    for t in range(T):
        carry, out = favor.recurrent_step(*carry, q[0, t], k[0, t], v[0, t], projection)
        found.append(out)
    close(np.stack(found)[None], wanted)


def torch_attention(w):
    """torch's own module with these weights."""
    module = torch.nn.MultiheadAttention(D, H, batch_first=True)
    with torch.no_grad():
        module.in_proj_weight.copy_(torch.cat([w[f"{name}/kernel"].T for name in "qkv"]))
        module.in_proj_bias.copy_(torch.cat([w[f"{name}/bias"] for name in "qkv"]))
        module.out_proj.weight.copy_(w["out/kernel"].T)
        module.out_proj.bias.copy_(w["out/bias"])
    return module


def eend_layer(w, x, mask):
    """Around torch's attention: the sum goes on from the normalised stream."""

    def norm(name, x):
        return F.layer_norm(x, (D,), w[f"{name}/scale"], w[f"{name}/bias"])

    x = norm("norm1", x)
    own = under(w, "attention")
    if "projection" in own:
        x = norm("norm2", x + attention(own, "linear", x, None, mask))
    else:
        x = norm("norm2", x + torch_attention(own)(x, x, x, key_padding_mask=~mask, need_weights=False)[0])
    return x + linear(w, "fc2", F.relu(linear(w, "fc1", x)))


@pytest.mark.parametrize("kind", diarizers.ATTENTIONS)
def test_the_layer_of_eend(kind):
    run, w = built(diarizers.EendLayer(D, H, 10, kind=kind, init=Init(0)))
    close(run(X_BTD, MASK_BT), eend_layer(w, tensor(X_BTD), tensor(MASK_BT)))


def torch_lstm(w):
    module = torch.nn.LSTM(*w["kernel"].shape[:1], w["own_kernel"].shape[0], batch_first=True)
    with torch.no_grad():
        module.weight_ih_l0.copy_(w["kernel"].T)
        module.weight_hh_l0.copy_(w["own_kernel"].T)
        module.bias_ih_l0.copy_(w["bias"])
        module.bias_hh_l0.zero_()
    return module


def attractors(w, x, lengths, order, count):
    """Frames in a drawn order, padding left out, through torch's LSTMs."""
    found = []
    for own, length in zip(x, lengths, strict=True):
        places = [t for t in order if t < length]
        _, carry = torch_lstm(under(w, "reader"))(own[places][None])
        found.append(torch_lstm(under(w, "writer"))(torch.zeros(1, count, D), carry)[0])
    found = torch.cat(found)
    return found, linear(w, "exists", found)[..., 0]


def test_the_lstms_of_attractors():
    key = jax.random.key(5)
    run, w = built(diarizers.Attractors(D, init=Init(0)), lambda net, x, mask: net(x, mask, 4, key))
    order = np.asarray(jax.random.permutation(key, T)).tolist()
    found, exists = run(X_BTD, MASK_BT)
    wanted, exist = attractors(w, tensor(X_BTD), MASK_BT.sum(1).tolist(), order, 4)
    close(found, wanted)
    close(exists, exist)


def active_and_exists(net, x, mask):
    heard = net(x, mask)
    return heard.active_BTS, heard.exists_BS


@pytest.mark.parametrize(("head", "attention"), [("attractors", "softmax"), ("fixed", "linear")])
def test_whole_diarizers(head, attention):
    sizes = diarizers.Sizes((2, 5), most=3, head=head, attention=attention, width=D, heads=H, layers=2, ffn=10)
    x = np.random.default_rng(4).normal(size=(B, T, 2, 5)).astype(np.float32)
    run, w = built(diarizers.Diarizer(sizes, init=Init(0)), active_and_exists)
    mixed = torch.einsum("btld,l->btd", tensor(x), w["shares"].softmax(0))
    h = linear(w, "project", mixed)
    for number in range(2):
        h = eend_layer(under(w, f"layers/{number}"), h, tensor(MASK_BT))
    h = F.layer_norm(h, (D,), w["norm/scale"], w["norm/bias"])
    order = np.asarray(jax.random.permutation(jax.random.key(0), T)).tolist()
    active, found_exists = run(x, MASK_BT)
    if head == "fixed":
        wanted = linear(w, "speakers", h)
    else:
        some, exists = attractors(under(w, "attractors"), h, MASK_BT.sum(1).tolist(), order, 4)
        wanted = h @ some[:, :-1].transpose(1, 2)
        close(found_exists, exists)
    close(active * MASK_BT[..., None], wanted * tensor(MASK_BT)[..., None])


def test_the_whole_ego_network():
    sizes = EgoSizes((5,), width=D, heads=H, layers=1, ffn=10, attention="linear", decoder="causal_linear")
    x, enrol = (np.random.default_rng(n).normal(size=(B, size, 5)).astype(np.float32) for n, size in ((6, T), (7, S)))
    run, w = built(EgoNet(sizes, init=Init(0)))
    kind = performer.Kind(D, H, 10, "linear")
    project = [linear(w, "project", tensor(some)) for some in (x, enrol)]
    states = [
        performer_layer(under(w, "encoder/0"), kind, some, tensor(mask))
        for some, mask in zip(project, (MASK_BT, MASK_BS), strict=True)
    ]
    seen = tensor(MASK_BS)[..., None]
    token = linear(w, "enrolled", (states[1] * seen).sum(1) / seen.sum(1))
    unit = lambda some: some / torch.sqrt(some.square().mean(-1, keepdim=True) + 1e-6)  # noqa: E731
    alike = linear(w, "alike", unit(states[0]) * unit(token)[:, None])
    y = torch.cat([token[:, None], project[0] + alike], dim=1)
    mask = F.pad(tensor(MASK_BT), (1, 0), value=True)
    own = dataclasses.replace(kind, attention="causal_linear", rotary=True)
    y = performer_layer(under(w, "decoder/0"), own, y, mask, states[0], tensor(MASK_BT))
    wanted = linear(w, "classes", y[:, 1:])
    real = MASK_BT[..., None]
    close(np.asarray(run(x, MASK_BT, enrol, MASK_BS)) * real, wanted * tensor(real))
