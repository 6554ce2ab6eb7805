"""Classifiers of sounds: sizes as published in the notes, and the same numbers as torch modules of the same layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.nn import functional, probe, sounds
from moejax.nn.variables import Init
from moejax.ops import routing

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
SHAPE, CLASSES = (24, 40), 5
IMAGE_BMN = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "count"), [("cnn", 1_400_970), ("transformer", 2_466_506), ("vgg", 295_482), ("crnn", 246_762)]
)
def test_networks_have_the_parameters_that_they_ought_to_have(kind, count):
    _, params = functional.split(sounds.KINDS[kind]((64, 173), 10, Init(0)))
    assert functional.count(params["backbone"]) == count and set(params) == {"backbone", "buffer"}


def ours(kind, image_BMN=IMAGE_BMN, **options):
    """(logits, params as a flat dict, moments of batch norms) of a fresh network, every vector of it drawn too."""
    graphdef, params = functional.split(sounds.KINDS[kind](SHAPE, CLASSES, Init(1)))
    rng = np.random.default_rng(2)

    def drawn(leaf):
        return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), jnp.float32)

    flat = functional.paths(functional.materialise(params))
    flat = {
        path: drawn(leaf) if "norm" in path or "/centre" in path or "/spread" in path else leaf
        for path, leaf in flat.items()
    }
    params = functional.nest(flat)

    def forward(params, image_BMN):
        moments = [] if options.get("train") else None
        logits_BC = functional.merge(graphdef, params)(image_BMN, moments=moments, real_B=options.get("real_B"))
        return logits_BC, moments

    logits_BC, moments = jax.jit(forward)(params, image_BMN)
    tree = {path.split("/", 1)[1]: torch.tensor(np.asarray(leaf)) for path, leaf in flat.items()}
    return np.asarray(logits_BC), tree, moments


class Torch:
    """The same layers with these arrays, called by hand."""

    def __init__(self, tree, train=False):
        self.tree, self.train = tree, train

    def image(self):
        x = torch.tensor(IMAGE_BMN)
        return ((x - self.tree["centre"][None, :, None]) / self.tree["spread"][None, :, None])[:, None]

    def conv(self, x, name, stride=1):
        conv = nn.Conv2d(x.shape[1], self.tree[f"{name}/bias"].shape[0], 3, stride=stride, padding=1)
        conv.weight.data = self.tree[f"{name}/kernel"].permute(3, 2, 0, 1)
        conv.bias.data = self.tree[f"{name}/bias"]
        return conv(x)

    def norm(self, x, name):
        norm = nn.BatchNorm2d(x.shape[1])
        norm.weight.data, norm.bias.data = self.tree[f"{name}/scale"], self.tree[f"{name}/bias"]
        norm.running_mean, norm.running_var = self.tree[f"{name}/mean"].clone(), self.tree[f"{name}/variance"].clone()
        return norm.train(self.train)(x)

    def block(self, x, number, stride=1):
        return F.relu(self.norm(self.conv(x, f"blocks/{number}/conv", stride), f"blocks/{number}/norm"))

    def linear(self, x, name):
        return x @ self.tree[f"{name}/kernel"] + self.tree[f"{name}/bias"]


def simple_cnn(net):
    x = net.image()
    for number in range(3):
        x = F.max_pool2d(F.relu(net.conv(x, f"convs/{number}")), 2)
    return net.linear(F.relu(net.linear(torch.flatten(x, 1), "fc1")), "fc2")


def vgg(net):
    x = net.image()
    for number in range(8):
        x = net.block(x, number)
        x = F.max_pool2d(x, 2) if number % 2 else x
    return net.linear(x.mean((2, 3)) + x.amax((2, 3)), "head")


def crnn(net):
    x = net.image()
    for number in range(3):
        x = F.max_pool2d(net.block(x, number), 2)
    x = x.permute(0, 3, 1, 2).flatten(2)
    gru = nn.GRU(x.shape[2], 64, batch_first=True, bidirectional=True)
    for side, end in (("forward", ""), ("backward", "_reverse")):
        getattr(gru, f"weight_ih_l0{end}").data = net.tree[f"{side}/kernel"].T.contiguous()
        getattr(gru, f"weight_hh_l0{end}").data = net.tree[f"{side}/own_kernel"].T.contiguous()
        getattr(gru, f"bias_ih_l0{end}").data = net.tree[f"{side}/bias"]
        getattr(gru, f"bias_hh_l0{end}").data = net.tree[f"{side}/own_bias"]
    return net.linear(gru(x)[0].mean(1), "head")


def transformer(net):
    x = net.image()
    for number in range(3):
        x = net.block(x, number, stride=2)
    x = net.linear(x.permute(0, 3, 1, 2).flatten(2), "project") + net.tree["positions"]
    for number in range(4):
        layer = nn.TransformerEncoderLayer(256, 8, 512, dropout=0.0, batch_first=True).eval()
        at = f"layers/{number}"
        joined = {part: [net.tree[f"{at}/{name}/{part}"] for name in "qkv"] for part in ("kernel", "bias")}
        layer.self_attn.in_proj_weight.data = torch.cat([kernel.T for kernel in joined["kernel"]])
        layer.self_attn.in_proj_bias.data = torch.cat(joined["bias"])
        for theirs, name in ((layer.self_attn.out_proj, "out"), (layer.linear1, "fc1"), (layer.linear2, "fc2")):
            theirs.weight.data, theirs.bias.data = net.tree[f"{at}/{name}/kernel"].T, net.tree[f"{at}/{name}/bias"]
        for theirs, name in ((layer.norm1, "norm1"), (layer.norm2, "norm2")):
            theirs.weight.data, theirs.bias.data = net.tree[f"{at}/{name}/scale"], net.tree[f"{at}/{name}/bias"]
        x = layer(x)
    return net.linear(x.mean(1), "head")


THEIRS = {"cnn": simple_cnn, "vgg": vgg, "crnn": crnn, "transformer": transformer}


@pytest.mark.parametrize("kind", THEIRS)
def test_logits_are_those_of_torch(kind):
    found, tree, _ = ours(kind)
    with torch.no_grad():
        theirs = THEIRS[kind](Torch(tree)).numpy()
    assert theirs.std() > 1e-3
    np.testing.assert_allclose(found, theirs, atol=1e-5 * max(1.0, np.abs(theirs).max()), rtol=1e-5)


def test_batch_norms_go_by_real_rows_in_training_and_by_what_was_collected_after():
    image_BMN = IMAGE_BMN.copy()
    found, tree, moments = ours("crnn", image_BMN, train=True)
    with torch.no_grad():
        theirs = THEIRS["crnn"](Torch(tree, train=True)).numpy()
    np.testing.assert_allclose(found, theirs, atol=1e-5)
    padded_BMN = np.concatenate([image_BMN, np.full((1, *SHAPE), 50.0, np.float32)])
    filled, _, others = ours("crnn", padded_BMN, train=True, real_B=np.array([True, True, True, False]))
    np.testing.assert_allclose(filled[:3], found, atol=1e-5)
    for mine, other in zip(moments, others, strict=True):
        np.testing.assert_allclose(mine[0], other[0], atol=1e-5)
    net = sounds.KINDS["crnn"](SHAPE, CLASSES, Init(1))
    sounds.calibrate(net, moments)
    np.testing.assert_array_equal(net.blocks[1].norm.mean[...], moments[1][0])


LAYERS, WIDTH, SEGMENTS = 4, 12, 6
STATES = np.random.default_rng(3).normal(size=(2, SEGMENTS, LAYERS, WIDTH)).astype(np.float32)
FRAMES = np.array([[10, 10, 10, 4, 0, 0], [10, 10, 10, 10, 10, 10]])


def probed(states=STATES, frames=FRAMES, **options):
    """(logits, params) of a probe whose every array is drawn."""
    net = probe.WhisperProbe((LAYERS, WIDTH), CLASSES, hidden=8, init=Init(0), **options)
    graphdef, params = functional.split(net)
    rng = np.random.default_rng(4)
    flat = {path: rng.normal(size=leaf.shape).astype(np.float32) for path, leaf in functional.paths(params).items()}
    flat = {path: 1 + np.abs(leaf) if path.endswith("spread") else leaf for path, leaf in flat.items()}
    params = functional.nest(flat)
    logits = jax.jit(lambda params: functional.merge(graphdef, params)(jnp.asarray(states), jnp.asarray(frames)))(
        params
    )
    return np.asarray(logits), {path.split("/", 1)[1]: torch.tensor(leaf) for path, leaf in flat.items()}


@pytest.mark.parametrize("pooling", probe.POOLINGS)
def test_the_probe_is_that_of_torch(pooling):
    found, tree = probed(pooling=pooling)
    assert np.abs(found[0] - found[1]).max() > 0.1
    x = (torch.tensor(STATES) - tree["centre"]) / tree["spread"]
    x = torch.einsum("btld,l->btd", x, torch.softmax(tree["shares"], 0))
    score = torch.log(torch.tensor(FRAMES, dtype=torch.float32))
    if pooling == "attention":
        score = score + x @ tree["query"] / WIDTH**0.5
    x = torch.einsum("btd,bt->bd", x, torch.softmax(score, -1))
    x = torch.relu(x @ tree["fc1/kernel"] + tree["fc1/bias"])
    np.testing.assert_allclose(found, (x @ tree["fc2/kernel"] + tree["fc2/bias"]).numpy(), rtol=1e-5, atol=1e-5)


def test_the_probe_hears_the_clip_and_not_what_follows_it():
    changed = STATES.copy()
    changed[0, 4:] = 1e3
    np.testing.assert_array_equal(probed()[0], probed(changed)[0])
    changed[0, 3] = 1e3
    assert np.abs(probed()[0] - probed(changed)[0])[0].max() > 0.1


def test_experts_of_the_head_change_nothing_until_they_learn_and_go_by_the_gate():
    def route(logits_BE):
        return routing.make_route(logits_BE, kind="topk", k=1)

    options = dict(experts=3, rank=2, route=route)
    graphdef, params = functional.split(probe.WhisperProbe((LAYERS, WIDTH), CLASSES, hidden=8, init=Init(0), **options))
    assert set(params) == {"head", "expert", "gate", "buffer"}
    plain, without = functional.split(probe.WhisperProbe((LAYERS, WIDTH), CLASSES, hidden=8, init=Init(0)))
    params, without = functional.materialise(params), functional.materialise(without)
    without["head"] = {**params["head"], "fc1": {n: params["head"]["fc1"][n] for n in ("kernel", "bias")}}

    def logits(graphdef, params):
        return np.asarray(functional.merge(graphdef, params)(jnp.asarray(STATES), jnp.asarray(FRAMES)))

    np.testing.assert_array_equal(logits(graphdef, params), logits(plain, without))
    flat = functional.paths(params["expert"])
    params["expert"] = functional.nest({path: jnp.ones_like(leaf) for path, leaf in flat.items()})
    awake = logits(graphdef, params)
    assert (awake != logits(plain, without)).any()
    params["gate"]["gate"] = params["gate"]["gate"] * 0.0  # one expert of probability 1 / 3, in place of a sure one
    assert (awake != logits(graphdef, params)).any()
    with pytest.raises(ValueError, match="unknown pooling 'max'; known: mean, attention"):
        probe.WhisperProbe((LAYERS, WIDTH), CLASSES, pooling="max", init=Init(0))
