"""What the gate hears and what is known of it: embeddings of rows of the manifest, their speakers' means, clusters."""

import numpy as np

from moejax.cohorts import embed
from moejax.errors import BadValue
from moejax.runtime import processes
from moejax.runtime.files import replacing
from moejax.training import encoder_states
from moejax.work.context import Context, embeddings
from moejax.work.folder import digest


def clusters_of(context: Context) -> dict[str, np.ndarray]:
    """The arrays of the cluster stage that have one entry per utterance, in the order of the manifest's rows, and the
    others as they are.
    """
    with np.load(context.work.path("cluster", "clusters.npz")) as file:
        found = dict(file)
    order = {name: i for i, name in enumerate(found["id"])}
    at = np.array([order[name] for name in context.corpus.manifest.column("id")])
    per_row = ("id", "label", "membership", "keep", "probability", "by")
    return {name: array[at] if name in per_row else array for name, array in found.items()}


def embeddings_of(context: Context, rows) -> np.ndarray:
    """Embeddings of these rows, in order. Errors: the embed stage saw another corpus."""
    found = embeddings(context.work)
    place = {name: i for i, name in enumerate(found["id"])}
    ids = context.corpus.manifest.column("id")[rows]
    missing = [name for name in ids if name not in place]
    if missing:
        raise BadValue(f"utterance {missing[0]!r} has no embedding; run the embed stage again")
    return found["embedding"][[place[name] for name in ids]]


def of_windows(context: Context, windows) -> np.ndarray:
    """Embeddings [W, U] of joined windows (`timed.Joined`), found once for all stages, kept beside encoder states."""
    made = {"windows": windows.digest(), "embed": repr(embed.options(context.cfg)), "base": context.heard.path.name}
    path = context.heard.path.with_name(f"{digest(made)}.windows.npy")
    if not processes.agree(path.exists()):
        found = embed.of_windows(
            context,
            _Audible(windows),
            range(len(windows)),
            lambda: encoder_states.opened_windows(context, windows),
        )
        if processes.first():
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary, open(temporary, "wb") as file:
                np.save(file, found)
        processes.meet()  # nobody reads what is being written
    return np.load(path)


class _Audible:
    """[number] -> audio [S] of a window to the end of what is said."""

    def __init__(self, windows):
        self._windows = windows

    def __getitem__(self, number: int) -> np.ndarray:
        return self._windows.audible(number)


def training_rows(context: Context, select=None) -> np.ndarray:
    """Rows of the training part that experts, mixture and adapters learn from. With mixture.even_speakers each row is
    there so many times that every speaker comes up about as often as the one with the most: what a majority has to say
    is otherwise most of what is learnt. Rows without a speaker are there once.
    """
    rows = context.corpus.rows("train", select)
    if not context.cfg.mixture.even_speakers:
        return rows
    speaker_N = context.corpus.manifest.column("speaker")[rows]
    known, place_N, count_P = np.unique(speaker_N, return_inverse=True, return_counts=True)
    most = max((count for name, count in zip(known, count_P, strict=True) if name), default=1)
    times_P = np.where(known == "", 1, np.maximum(np.round(most / count_P), 1)).astype(int)
    return np.repeat(rows, times_P[place_N])


def speaker_means(context: Context, rows) -> np.ndarray:
    """Embeddings of these rows with each speaker's mean over them in place of each; without a speaker, the own one."""
    embedding_NU, speaker_N = embeddings_of(context, rows), context.corpus.manifest.column("speaker")[rows]
    mean_NU = embedding_NU.copy()
    for name in set(speaker_N) - {""}:
        mean_NU[speaker_N == name] = embedding_NU[speaker_N == name].mean(0)
    return mean_NU


def enrolled_by_all(context: Context) -> np.ndarray:
    """For every row of the manifest the embedding by which a system would know its speaker: the mean of his utterances
    in training, or of his others in the same part where he has none there; without a name, the own one.
    """
    everything = np.arange(len(context.corpus.manifest))
    embedding_NU = embeddings_of(context, everything)
    speaker_N, split_N = context.corpus.manifest.column("speaker"), context.corpus.manifest.column("split")
    known_NU = embedding_NU.copy()
    for name in set(speaker_N) - {""}:
        own_N = speaker_N == name
        heard_N = own_N & (split_N == "train")
        if heard_N.any():
            known_NU[own_N] = embedding_NU[heard_N].mean(0)
            continue
        for part in set(split_N[own_N]):
            rows = np.flatnonzero(own_N & (split_N == part))
            if len(rows) > 1:
                known_NU[rows] = (embedding_NU[rows].sum(0) - embedding_NU[rows]) / (len(rows) - 1)
    return known_NU


def enrolled_by(context: Context, most: int) -> np.ndarray:
    """For every row of the manifest the mean embedding of at most `most` other utterances of its speaker, drawn from
    the training part, or from the row's own part for a speaker who is not in training; alone, or without a name, the
    own one.
    """
    embedding_NU = embeddings_of(context, np.arange(len(context.corpus.manifest)))
    speaker_N, split_N = context.corpus.manifest.column("speaker"), context.corpus.manifest.column("split")
    rng, found_NU = np.random.default_rng(context.cfg.seed), embedding_NU.copy()
    for name in sorted(set(speaker_N) - {""}):
        own = np.flatnonzero(speaker_N == name)
        heard = own[split_N[own] == "train"]
        for row in own:
            pool = heard if len(heard) else own[split_N[own] == split_N[row]]
            pool = pool[pool != row]
            if len(pool):
                found_NU[row] = embedding_NU[rng.permutation(pool)[:most]].mean(0)
    return found_NU
