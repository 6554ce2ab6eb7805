"""BEATs rebuilt in torch from its formulas, and Kaldi's filter banks against transformers' NumPy code."""

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_llama as tiny
from transformers import audio_utils

from moejax.errors import BadValue
from moejax.nn import functional
from moejax.nn.beats import BANDS, MEAN, SPREAD, Beats, BeatsConfig, bucket
from moejax.nn.variables import Init
from moejax.ops import kaldi_fbank

torch = pytest.importorskip("torch")
F = torch.nn.functional
CONFIG = tiny.BEATS
WAVE_BS = (0.1 * np.random.default_rng(0).normal(size=(2, 9000))).astype(np.float32)
SAMPLES_B = np.asarray([9000, 6000])


def theirs_fbank(wave_S, **changes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the lowest bands lie between two numbers of the spectrum, as Kaldi's do
        filters = audio_utils.mel_filter_bank(
            257, BANDS, 20, 8000, 16000, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True
        )
    options = {"power": 2.0, "center": False, "preemphasis": 0.97, "log_mel": "log", "remove_dc_offset": True}
    options |= {"mel_filters": filters, "mel_floor": float(np.finfo(np.float32).eps), "fft_length": 512} | changes
    window = audio_utils.window_function(400, "povey", periodic=False)
    return audio_utils.spectrogram(wave_S * 2.0**15, window, frame_length=400, hop_length=160, **options).T


def test_filter_banks_are_kaldis():
    found_BNM = np.asarray(jax.jit(kaldi_fbank.fbank)(WAVE_BS))
    want_BNM = np.stack([theirs_fbank(wave_S.astype(np.float64)) for wave_S in WAVE_BS])
    assert found_BNM.shape == want_BNM.shape == (2, kaldi_fbank.frames(9000), BANDS)
    np.testing.assert_allclose(found_BNM, want_BNM, atol=1e-3)  # of values around 15
    assert np.abs(found_BNM[0] - theirs_fbank(WAVE_BS[0].astype(np.float64), preemphasis=None)).max() > 0.1
    assert kaldi_fbank.frames(480_000) == 2998 and kaldi_fbank.frames(100) == 0


class Torch:
    """BEATs from the paper and the published formulas, with our arrays."""

    def __init__(self, params):
        flat = functional.paths(params["backbone"])
        self.tree = {path: torch.tensor(np.asarray(leaf)) for path, leaf in flat.items()}

    def linear(self, x, name):
        return F.linear(x, self.tree[f"{name}/kernel"].T, self.tree.get(f"{name}/bias"))

    def normed(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self.tree[f"{name}/scale"], self.tree[f"{name}/bias"])

    def buckets(self, T):
        at = torch.arange(T)[None] - torch.arange(T)[:, None]
        half = CONFIG.buckets // 2
        near = half // 2
        far = near + (
            torch.log(at.abs().float() / near) / math.log(CONFIG.max_distance / near) * (half - near)
        ).nan_to_num(neginf=0).to(torch.long)
        far = torch.minimum(far, torch.full_like(far, half - 1))
        return (at > 0).to(torch.long) * half + torch.where(at.abs() < near, at.abs(), far)

    def padding(self, mask, count):
        """Equal parts of a padding mask, true where all of a part is."""
        mask = mask[:, : mask.shape[1] - mask.shape[1] % count]
        return mask.view(len(mask), count, -1).all(-1)

    def __call__(self, wave_BS, samples_B):
        c, tree = CONFIG, self.tree
        fbank = torch.tensor(np.stack([theirs_fbank(w.astype(np.float64)) for w in wave_BS]), dtype=torch.float32)
        image = ((fbank - MEAN) / SPREAD)[:, None]
        kernel = tree["patches/kernel"].T.reshape(c.patch_width, 1, c.patch, c.patch)
        x = F.conv2d(image, kernel, stride=c.patch).flatten(2).transpose(1, 2)
        padding = torch.arange(wave_BS.shape[1])[None] >= torch.tensor(samples_B)[:, None]
        padding = self.padding(self.padding(padding, fbank.shape[1]), x.shape[1])
        x = self.linear(self.normed(x, "patch_norm"), "project")
        x[padding] = 0
        kernel = tree["conv_kernel"].permute(2, 1, 0)
        near = F.conv1d(x.transpose(1, 2), kernel, tree["conv_bias"], padding=c.conv // 2, groups=c.conv_groups)
        x = self.normed(x + F.gelu(near[..., :-1]).transpose(1, 2), "norm")
        bias = tree["distances"][self.buckets(x.shape[1])].permute(2, 0, 1)
        for n in range(c.layers):
            x = self.layer(x, f"layers/{n}", bias, padding)
        return x.numpy(), ~padding.numpy()

    def layer(self, x, at, bias, padding):
        c, residual = CONFIG, (2 * CONFIG.layers) ** 0.25
        B, T, D = x.shape
        q, k, v = (self.linear(x, f"{at}/self_attn/{p}").view(B, T, c.heads, -1).transpose(1, 2) for p in "qkv")
        gates = torch.sigmoid(self.linear(q, f"{at}/self_attn/gate").view(B, c.heads, T, 2, 4).sum(-1))
        a, b = gates.chunk(2, dim=-1)
        gate = a * (b * self.tree[f"{at}/self_attn/gate_scale"].view(1, -1, 1, 1) - 1) + 2
        score = q @ k.transpose(2, 3) / math.sqrt(D // c.heads)
        score = score.masked_fill(padding[:, None, None], -math.inf) + gate * bias[None]
        said = (score.softmax(-1) @ v).transpose(1, 2).reshape(B, T, D)
        x = self.normed(x * residual + self.linear(said, f"{at}/self_attn/out"), f"{at}/self_attn_norm")
        h = self.linear(F.gelu(self.linear(x, f"{at}/fc1")), f"{at}/fc2")
        return self.normed(x * residual + h, f"{at}/norm")


def test_states_are_those_of_the_formulas():
    graphdef, params = functional.split(Beats(CONFIG, init=Init(0)))
    params = tiny.drawn(params, width=0.3)
    run = jax.jit(lambda params, *xs: functional.merge(graphdef, params)(*xs))
    found, mask = (np.asarray(x) for x in run(params, WAVE_BS, SAMPLES_B))
    want, real = Torch(params)(WAVE_BS, SAMPLES_B)
    np.testing.assert_array_equal(mask, real)
    assert mask[0].all() and 0 < mask[1].sum() < mask.shape[1] == CONFIG.tokens(9000)
    np.testing.assert_allclose(found[mask], want[mask], atol=1e-4)
    other = {"backbone": {**params["backbone"], "distances": params["backbone"]["distances"] + np.eye(16, 2)}}
    assert np.abs(np.asarray(run(other, WAVE_BS, SAMPLES_B)[0]) - found).max() > 1e-2  # a control
    assert np.abs(np.asarray(run(params, WAVE_BS, SAMPLES_B[::-1].copy())[0])[0] - found[0]).max() > 1e-2


def test_buckets_are_exact_when_near_and_end_at_the_last():
    found = bucket(np.arange(-2000, 2001), 320, 1280)
    assert found[2000] == 0 and found[2001] == 161 and found[1999] == 1 and found[2079] == 160 + 79
    assert found[0] == 159 and found[-1] == 319 and found.min() == 0 and len(set(found.tolist())) <= 320


def test_what_cannot_be_heard_or_built():
    made = Beats(CONFIG, init=Init(0))
    with pytest.raises(BadValue, match="2000 samples are shorter than BEATs' first patch; it takes at least 2800"):
        made(jnp.zeros((1, 2000)))
    with pytest.raises(BadValue, match="width 770 must divide by 12 heads"):
        BeatsConfig(width=770)
