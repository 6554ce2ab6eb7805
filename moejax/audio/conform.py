"""Blocks of one recording that change their rate or number of channels on the way: joined files, broadcast streams."""

from collections.abc import Iterable, Iterator

import numpy as np
import soxr


def conform(blocks: Iterable[tuple[np.ndarray, int]], rate: int, channels: int) -> Iterator[np.ndarray]:
    """[S, channels] at `rate` of (block [S, any channels], its rate); what has both already passes untouched."""
    stream, foreign = None, rate
    for block, own in blocks:
        if stream is not None and own != foreign:
            yield stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)
            stream = None
        if block.shape[1] != channels:
            block = np.repeat(block.mean(axis=1, keepdims=True, dtype=np.float32), channels, axis=1)
        if own != rate:
            if stream is None:
                stream, foreign = soxr.ResampleStream(float(own), float(rate), channels, dtype="float32"), own
            block = stream.resample_chunk(np.ascontiguousarray(block))
        if len(block):
            yield block
    if stream is not None:
        yield stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)
