"""Pictures of clips and of what in them decides, for people to look at: W/folds/pictures.npz of a network from scratch,
pictures_probe.npz of a probe, through the encoder that it stands on.
"""

import dataclasses

import jax
import numpy as np

from moejax.audio.constants import SAMPLE_RATE
from moejax.nn.functional import GraphDef
from moejax.ops.audio import log_mel
from moejax.runtime.files import replacing
from moejax.tasks import classification
from moejax.training import base
from moejax.training import clips as clips_of
from moejax.training.clips import Clips
from moejax.types import Params
from moejax.work.context import Context

FILES = {"": "pictures.npz", "probe": "pictures_probe.npz"}
HOW = (
    "what of Whisper's features adds to the logit of the clip's class, through the frozen encoder (integrated "
    "gradients); what speaks against it is not shown, and the network may hear another class"
)
DECIBELS = 40.0  # of one unit of Whisper's features, which are (log10 of the power + 4) / 4


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network of one fold."""

    name: str
    graphdef: GraphDef
    params: Params


def draw(context: Context, clips: Clips, rows, wave_BS: np.ndarray, network: Trained | None = None) -> None:
    """Of these clips the wave, the image and the label, and of a network from scratch what of the image its class hangs
    on.
    """
    cfg, label_B = context.cfg, clips.label_U[rows]
    images = np.asarray(jax.jit(clips_of.mel(cfg))(wave_BS))
    found = {"wave": wave_BS, "image": images, "label": label_B, "rate": cfg.clips.rate, "hop": cfg.clips.hop}
    if network is not None:
        saliency = classification.make_saliency(network.graphdef)
        found["saliency"] = np.asarray(saliency(network.params, images, label_B))
        found["model"] = network.name
    _write(context, FILES[""], found)


def draw_probe(context: Context, clips: Clips, rows, network: Trained) -> None:
    """The same of a probe: Whisper's own features, and what of them speaks for the class."""
    config, graphdef, params, size = clips_of.encoder_of(context, clips, base.pretrained(context.cfg))
    label_B = clips.label_U[rows]
    wave_BS, samples_B = clips_of.audio(context, clips.rows[rows], size, len(rows))
    mel_BNM = jax.jit(lambda wave_BS: log_mel(wave_BS, n_mels=config.num_mel_bins, hop=config.hop))(wave_BS)
    saliency = classification.make_probe_saliency(graphdef, network.graphdef, config.hop, context.cfg.clips.segment)
    speaks_BNM = np.asarray(saliency(params, network.params, mel_BNM, samples_B, label_B), np.float32)
    found = {"wave": wave_BS, "image": DECIBELS * np.asarray(mel_BNM, np.float32).swapaxes(1, 2), "label": label_B}
    found |= {"rate": SAMPLE_RATE, "hop": config.hop, "saliency": np.maximum(speaks_BNM.swapaxes(1, 2), 0.0)}
    found |= {"model": network.name, "how": HOW}
    _write(context, FILES["probe"], found)


def _write(context: Context, name: str, found: dict) -> None:
    with replacing(context.work.path("folds", name)) as partial, open(partial, "wb") as out:
        np.savez(out, **found)
