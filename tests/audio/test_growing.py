import mmap

import numpy as np

from moejax.audio.growing import Growing


def test_blocks_of_any_size_are_one_array_that_can_be_written_to():
    sizes = (3, 0, 1 << 18, 5, 1 << 19, 7)  # over its first size twice
    blocks = [np.random.default_rng(size).normal(size=size).astype(np.float32) for size in sizes]
    growing = Growing()
    for block in blocks:
        growing.append(block)
    samples = growing.finished()
    del growing
    assert np.array_equal(samples, np.concatenate(blocks))
    samples[-1] = 0.0
    assert samples.dtype == np.float32 and samples[-1] == 0.0


def test_nothing_is_an_empty_array():
    assert Growing().finished().shape == (0,)


def test_a_system_that_cannot_move_a_mapping_copies_it(monkeypatch):
    class Fixed(mmap.mmap):
        def resize(self, size):
            raise SystemError("mmap: resizing not available--no mremap()")

    monkeypatch.setattr(mmap, "mmap", Fixed)
    growing, first = Growing(), np.arange(9, dtype=np.float32)
    growing.append(first)
    rest = np.ones(1 << 19, np.float32)
    growing.append(rest)
    assert np.array_equal(growing.finished(), np.concatenate([first, rest]))
