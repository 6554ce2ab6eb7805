"""How each utterance of the sample would change a shared adapter: a signal of what an expert would have to learn.

Voices that the base serves alike pull an adapter in the same direction, whatever they sound like. The adapter is a
fresh LoRA, so the gradient with respect to its second factor is the whole of it; it is scaled to unit length, because
its length is mostly how badly the utterance was understood, and projected onto random directions, which keeps angles
(Johnson and Lindenstrauss 1984). Needs transcripts, unlike the embedding.
"""

import time

import numpy as np

from moejax.data.pipeline import eval_batches, loader
from moejax.errors import NotThere
from moejax.nn import functional
from moejax.runtime import processes, shares
from moejax.runtime.files import write_npz
from moejax.tasks import asr
from moejax.work.context import Context, key_of

TOGETHER = 8  # utterances whose gradients are in memory at once


def write(context: Context) -> dict:
    """Writes W/embed/gradients.npz: id [M] of the sample's utterances in train, gradient [M, blocks x dims] float32
    with rows of unit length in every block, block_names (encoder, decoder). Several processes find a share each.
    """
    began = time.monotonic()
    cfg, work = context.cfg, context.work
    options = cfg.embed.gradient
    manifest = context.corpus.manifest
    rows = np.flatnonzero(manifest.column("sample") & (manifest.column("split") == "train"))
    config, base = context.base.config, context.base.params
    mixture = asr.Mixture(tuple(options.targets), 1, options.rank, float(options.rank), routing="dense")
    graphdef, params = asr.init(asr.build(config, mixture=mixture, seed=cfg.seed), base)
    blocks = sorted({path.split("/")[0] for path in functional.paths(params["expert"])})
    sketch = asr.make_gradients(graphdef, mixture, dims=options.dims, together=TOGETHER)
    batches = processes.share(
        eval_batches(context.corpus.samples[rows], context.buckets, options.batch_size, multiple=TOGETHER)
    )
    stream = loader(batches, context.collator(rows, np.zeros(len(rows), np.int64)), workers=cfg.runtime.workers)
    mine, found_nU = [np.zeros(0, np.int64)], [np.zeros((0, len(blocks) * options.dims), np.float32)]
    for (_, index), batch in zip(batches, work.progress(stream, total=len(batches), desc="gradients"), strict=False):
        found = sketch(params, batch, key_of(cfg, "gradients"))
        found_BU = np.concatenate([np.asarray(found[block]) for block in blocks], axis=1)
        mine.append(index[index >= 0])
        found_nU.append(found_BU[index >= 0])
    out = shares.merged(work.path("embed"), np.concatenate(mine), np.concatenate(found_nU))
    names = manifest.column("id")[rows].astype(str)
    write_npz(work.path("embed", "gradients.npz"), id=names, gradient=out, block_names=np.array(blocks))
    return {"gradients": len(rows), "gradient_seconds": round(time.monotonic() - began, 1)}


def load(work, ids_N: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """`(gradient [N, U], block names)` in the order of `ids_N`, zeros for utterances that have none."""
    path = work.path("embed", "gradients.npz")
    if not path.is_file():
        raise NotThere(f"no gradients at {path}; set embed.signals=('gradient',) and run `moejax embed` again")
    with np.load(path) as arrays:
        row_of = {str(name): row for row, name in enumerate(arrays["id"])}
        found, names = arrays["gradient"], [str(name) for name in arrays["block_names"]]
    out = np.zeros((len(ids_N), found.shape[1]), np.float32)
    at = [(n, row_of[str(name)]) for n, name in enumerate(ids_N) if str(name) in row_of]
    if at:
        here, there = np.array(at).T
        out[here] = found[there]
    return out, names
