"""Rows on disk in files of a few: what is there stays, what is missing is made, and a log says how far it is."""

import numpy as np

from moejax.data import blocks
from moejax.data.blocks import Blocks
from moejax.work import folder
from moejax.work.folder import Work


def test_only_missing_blocks_are_made_and_the_log_says_how_far(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "LOG_EVERY", 0.0)
    squares, negatives = Blocks(tmp_path / "squares"), Blocks(tmp_path / "negatives")
    count = 3 * blocks.ROWS + 5
    made = []

    def make(rows):
        made.append(rows)
        numbers = np.array(rows)
        return numbers**2, -numbers

    parts, work = (squares, negatives), Work(tmp_path / "run", quiet=True)
    blocks.fill(work, "numbers", count, parts, make)
    assert [squares[row] for row in range(count)] == [row**2 for row in range(count)]
    assert [negatives[row] for row in range(count)] == [-row for row in range(count)]
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "numbers: 1 of 4" in log and "numbers: 3 of 4" in log

    absent = blocks.blocks_of(count)[1]
    negatives.remove(absent)  # of one part alone: the rows are made once more, for both
    made.clear()
    blocks.fill(work, "numbers", count, parts, make)
    assert made == [absent]
    assert negatives[absent[0]] == -absent[0]
