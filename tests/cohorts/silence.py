"""How far silence moves the embedding that cohorts are found in.

    python tests/cohorts/silence.py MODEL DATA [--utterances 120] [--layer -1]

MODEL: a folder of a published Whisper; DATA: a folder with metadata.csv (file, speaker). Prints a table: how far each
change of an utterance moves its embedding (mean and standard deviation over frames, standardised over the utterances),
as a share of the median distance between utterances of two speakers, pooled over frames with speech and over all.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from moejax.audio.constants import SAMPLE_RATE
from moejax.audio.read import gate, read
from moejax.convert import whisper_folder
from moejax.decode.features import Features
from moejax.nn import functional
from moejax.ops.pooling import speech_frames
from moejax.tasks import asr

STEP = 320  # samples of an encoder frame


def of(seconds, level, rng):
    """Silence: zeros, or noise of a root mean square of `level`."""
    return (level * rng.standard_normal(round(seconds * SAMPLE_RATE))).astype(np.float32)


def trimmed(audio_S):
    """From the first to the last frame with speech."""
    frames = -(-len(audio_S) // STEP)
    speech_T = np.asarray(speech_frames(audio_S[None], np.array([len(audio_S)]), frames, STEP // 2))[0]
    first, last = np.flatnonzero(speech_T)[[0, -1]]
    return audio_S[first * STEP : (last + 1) * STEP]


def changes(rng):
    """name -> what is done to an utterance."""
    found = {"cut to its speech": trimmed}
    for seconds in (0.5, 1.0, 3.0):
        found[f"{seconds} s of zeros behind"] = lambda x, s=seconds: np.concatenate([x, of(s, 0, rng)])
        found[f"{seconds} s of zeros before"] = lambda x, s=seconds: np.concatenate([of(s, 0, rng), x])
    found["1.0 s at -60 dB behind"] = lambda x: np.concatenate([x, of(1.0, 1e-3, rng)])
    found["1.0 s at -60 dB before"] = lambda x: np.concatenate([of(1.0, 1e-3, rng), x])
    found["3.0 s at -60 dB behind"] = lambda x: np.concatenate([x, of(3.0, 1e-3, rng)])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--utterances", type=int, default=120)
    parser.add_argument("--layer", type=int, default=-1)
    args = parser.parse_args()
    config, params = whisper_folder.load(args.model)
    graphdef, _ = functional.abstract(asr.build(config))
    window = 2 * config.max_source_positions * config.hop
    embeds = [asr.make_embed(graphdef, asr.Embedding((args.layer,), "mean_std", trim)) for trim in (True, False)]

    with open(args.data / "metadata.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rng = np.random.default_rng(0)
    rows = [rows[at] for at in rng.permutation(len(rows))[: args.utterances]]
    waves = [gate(*read(args.data / row["file"])).samples for row in rows]

    def embedded(audio_S):
        heard = Features(audio_S, n_mels=config.num_mel_bins, hop=config.hop)
        mel_NM = np.zeros((window // config.hop, config.num_mel_bins), np.float32)
        mel_NM[: heard.frames] = heard.slice(0, heard.frames)  # zeros behind, as the reference's transcribe
        padded_S = np.zeros(window, np.float32)
        padded_S[: len(audio_S)] = audio_S
        given = padded_S[None], np.array([len(audio_S)]), mel_NM[None]
        return [np.asarray(embed(params, *given))[0] for embed in embeds]

    plain_KNU = np.array([embedded(wave) for wave in waves]).swapaxes(0, 1)
    centre_KU, spread_KU = plain_KNU.mean(1), plain_KNU.std(1)
    points = [(plain_NU - plain_NU.mean(0)) / plain_NU.std(0) for plain_NU in plain_KNU]
    speakers = np.array([row["speaker"] for row in rows])
    apart_NN = speakers[:, None] != speakers[None]
    typical = [np.median(np.linalg.norm(p[:, None] - p[None], axis=-1)[apart_NN]) for p in points]
    print("| change | pooled over speech | over all frames |\n|---|---:|---:|")
    for name, change in changes(rng).items():
        moved_KNU = np.array([embedded(change(wave)) for wave in waves]).swapaxes(0, 1)
        moved = [(m - c) / s for m, c, s in zip(moved_KNU, centre_KU, spread_KU, strict=True)]
        shares = [np.linalg.norm(m - p, axis=1) / t for m, p, t in zip(moved, points, typical, strict=True)]
        print(f"| {name} | " + " | ".join(f"{np.median(s):.2f} ({np.quantile(s, 0.9):.2f})" for s in shares) + " |")


main()
