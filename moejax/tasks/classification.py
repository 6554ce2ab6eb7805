"""Classes of sounds: how a batch becomes a loss, and clips become logits; what a frozen encoder says of a clip.

A batch is a dict: `label_B`, `row_B` (the clip's number, which its noise is drawn by), `real_B`, and what is heard:
`wave_BS`, or kept states `states_BTLD` with `frames_BT`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax.nn import functional, probe, sounds
from moejax.nn.layers import Noise
from moejax.nn.variables import Init
from moejax.ops import augment, losses, routing, waveform
from moejax.ops.audio import log_mel
from moejax.ops.pooling import valid_frames
from moejax.ops.sound_mel import Mel
from moejax.types import Array, Params

NETS = (*sounds.KINDS, "probe")


@dataclasses.dataclass(frozen=True)
class Row:
    """How a network is trained: its noise. `spec`: keyword arguments of `augment.spec_augment`, {} for none."""

    strengths: waveform.Strengths = waveform.Strengths()
    spec: dict = dataclasses.field(default_factory=dict)
    mixup: float = 0.0  # alpha; 0: none
    dropout: float = 0.0
    smoothing: float = 0.0


def init(kind: str, shape: tuple[int, int], classes: int, seed: int, **options) -> tuple[functional.GraphDef, Params]:
    """`(graphdef, params)` of a fresh network: an image's shape (bands, frames), or of a probe (layers, width).
    `options` are those of `WhisperProbe`; its `route` is (kind of routing, top k).
    """
    if kind == "probe":
        name, k = options.pop("route", ("dense", 1))
        route = lambda logits_BE: routing.make_route(logits_BE, kind=name, k=k)  # noqa: E731
        net: Any = probe.WhisperProbe(shape, classes, route=route, init=Init(seed), **options)
    else:
        net = sounds.KINDS[kind](shape, classes, Init(seed))
    graphdef, params = functional.split(net)
    return graphdef, functional.materialise(params)


def trainable(params: Params) -> tuple[str, ...]:
    """Groups that learn: all but constants."""
    return tuple(group for group in params if group != "buffer")


def standardised(graphdef: functional.GraphDef, params: Params, centre: np.ndarray, spread: np.ndarray) -> Params:
    """Params with these statistics of training clips."""
    net = functional.merge(graphdef, params)
    sounds.standardise(net, centre, spread)
    return {**params, "buffer": functional.split(net)[1]["buffer"]}


def make_loss(graphdef: functional.GraphDef, classes: int, row: Row, mel: Mel | None) -> Callable:
    """`loss_fn(params, batch, key)`: cross-entropy of real rows under the row's noise. `mel` None: kept states.

    Every clip has a key of its own, of the step and its number: who else is in the batch changes nothing of its noise
    but MixUp and dropout.
    """

    def loss_fn(params, batch, key):
        net = functional.merge(graphdef, params)
        real_B, target_BC = batch["real_B"], jax.nn.one_hot(batch["label_B"], classes)
        target_BC = (1.0 - row.smoothing) * target_BC + row.smoothing / classes
        key_clip, key_spec, key_mix, key_drop = jax.random.split(key, 4)
        noise = Noise(key_drop, row.dropout)
        if mel is None:
            logits_BC = net(batch["states_BTLD"], batch["frames_BT"], noise=noise)
        else:
            keys_B = jax.vmap(jax.random.fold_in, (None, 0))(key_clip, batch["row_B"])
            wave_BS = jax.vmap(lambda key, wave: waveform.augmented(key, wave, row.strengths))(keys_B, batch["wave_BS"])
            image_BMN = mel(wave_BS)
            if row.spec:
                frames_B = jnp.full(real_B.shape, mel.frames)
                image_BMN = augment.spec_augment(key_spec, image_BMN.swapaxes(1, 2), frames_B, **row.spec).swapaxes(
                    1, 2
                )
            if row.mixup:
                image_BMN, target_BC = waveform.mixup(key_mix, image_BMN, target_BC, real_B, row.mixup)
            logits_BC = net(image_BMN, noise=noise, moments=[], real_B=real_B)
        loss = losses.soft_cross_entropy(logits_BC, target_BC, real_B.astype(jnp.float32))
        hit_B = (logits_BC.argmax(-1) == batch["label_B"]) & real_B
        return loss, {"accuracy": hit_B.sum() / jnp.maximum(real_B.sum(), 1)}

    return loss_fn


def make_logits(graphdef: functional.GraphDef, mel: Mel | None) -> Callable[[Params, dict], Array]:
    """`logits(params, batch) -> [B, C]` without any noise."""

    @jax.jit
    def logits(params, batch):
        net = functional.merge(graphdef, params)
        return net(batch["states_BTLD"], batch["frames_BT"]) if mel is None else net(mel(batch["wave_BS"]))

    return logits


def make_calibrated(graphdef: functional.GraphDef, mel: Mel | None) -> Callable[[Params, list], Params]:
    """`calibrated(params, batches) -> params` whose batch norms go by the mean moments of these batches of training
    clips, without noise: what they are is known when it is asked, so no step carries running means.
    """

    @jax.jit
    def collect(params, batch):
        moments: list = []
        assert mel is not None
        functional.merge(graphdef, params)(mel(batch["wave_BS"]), moments=moments, real_B=batch["real_B"])
        return moments

    def calibrated(params, batches):
        if mel is None or not any("norm" in path for path in functional.paths(params["buffer"])):
            return params
        found = [jax.device_get(collect(params, batch)) for batch in batches]
        means = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *found)
        net = functional.merge(graphdef, params)
        sounds.calibrate(net, means)
        return {**params, "buffer": functional.split(net)[1]["buffer"]}

    return calibrated


def make_saliency(graphdef: functional.GraphDef) -> Callable[[Params, Array, Array], Array]:
    """`saliency(params, image_BMN, label_B) -> [B, M, N]`: how much the logit of a class changes with each cell of the
    image, absolute, over 25 noisy copies of it (SmoothGrad, Smilkov et al. 2017; noise a tenth of the image's range).
    """

    @jax.jit
    def saliency(params, image_BMN, label_B):
        def chosen(image_BMN):
            logits_BC = functional.merge(graphdef, params)(image_BMN)
            return jnp.take_along_axis(logits_BC, label_B[:, None], axis=1).sum()

        reach_B11 = 0.1 * (image_BMN.max((1, 2), keepdims=True) - image_BMN.min((1, 2), keepdims=True))

        def one(total_BMN, key):
            noise_BMN = reach_B11 * jax.random.normal(key, image_BMN.shape)
            return total_BMN + jnp.abs(jax.grad(chosen)(image_BMN + noise_BMN)), None

        keys = jax.random.split(jax.random.key(0), 25)
        return jax.lax.scan(one, jnp.zeros_like(image_BMN), keys)[0] / len(keys)

    return saliency


def make_probe_saliency(
    encoder: functional.GraphDef, graphdef: functional.GraphDef, hop: int, segment: int, steps: int = 8
) -> Callable[..., Array]:
    """`saliency(encoder params, params, mel_BNM, samples_B, label_B) -> [B, N, M]`: what each cell of Whisper's log-mel
    features adds, through the frozen encoder, to a probe's logit of a class above the mean of all, beginning at the
    quietest of the clip. Its sum is that gain, but for what `steps` (of the integral) leave out (integrated gradients,
    Sundararajan et al. 2017). One clip after the other.
    """

    @jax.jit
    def saliency(encoder_params, params, mel_BNM, samples_B, label_B):
        def one(clip):
            mel_NM, samples, label = clip

            def gain(mel_NM):
                model = functional.merge(encoder, encoder_params)
                heard = _segments(model, mel_NM[None], samples[None], hop, segment)
                logits_C = functional.merge(graphdef, params)(*heard)[0]
                return logits_C[label] - logits_C.mean()

            low, slope = mel_NM.min(), jax.grad(gain)
            shares = (jnp.arange(steps) + 0.5) / steps
            step = lambda total_NM, share: (total_NM + slope(low + share * (mel_NM - low)), None)  # noqa: E731
            return (mel_NM - low) * jax.lax.scan(step, jnp.zeros_like(mel_NM), shares)[0] / steps

        return jax.lax.map(one, (mel_BNM, samples_B, label_B))

    return saliency


def make_hear(graphdef: functional.GraphDef, mels: int, hop: int, segment: int) -> Callable:
    """`hear(params, audio_BS, samples_B) -> (states [B, T, layers, D], frames [B, T])` of a frozen Whisper encoder.

    All layers, the input of the first one too and the last as the decoder sees it; each state is the mean of `segment`
    frames (20 ms each), and `frames_BT` says how many of them are the clip and not the zeros behind it.
    """

    @jax.jit
    def hear(params, audio_BS, samples_B):
        mel_BNM = log_mel(audio_BS, n_mels=mels, hop=hop)
        return _segments(functional.merge(graphdef, params), mel_BNM, samples_B, hop, segment)

    return hear


def _segments(model, mel_BNM, samples_B, hop: int, segment: int) -> tuple[Array, Array]:
    """What `make_hear` gives of features."""
    last_BND, hidden = model.encoder(mel_BNM, layers=True)
    states_BNLD = jnp.stack([*hidden[:-1], last_BND], axis=2).astype(jnp.float32)
    mask_BN = valid_frames(samples_B, states_BNLD.shape[1], hop)
    B, N, L, D = states_BNLD.shape
    room = -N % segment
    mask_BTK = jnp.pad(mask_BN, ((0, 0), (0, room))).reshape(B, -1, segment)
    states = jnp.pad(states_BNLD, ((0, 0), (0, room), (0, 0), (0, 0))).reshape(B, -1, segment, L, D)
    total_BTLD = jnp.where(mask_BTK[..., None, None], states, 0.0).sum(2)
    frames_BT = mask_BTK.sum(-1)
    return total_BTLD / jnp.maximum(frames_BT, 1)[..., None, None], frames_BT
