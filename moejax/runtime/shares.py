"""What several processes have each found a share of, put together through the folder that all of them see."""

from pathlib import Path

import numpy as np

from moejax.runtime import processes
from moejax.runtime.files import replacing


def merged(folder: Path, rows_n: np.ndarray, values_nU: np.ndarray) -> np.ndarray:
    """Values [N, U] of all processes in the order of their rows, which are 0 to N - 1, each found by one of them. Every
    process calls this with what is its own, be it nothing; what lies in `folder` meanwhile is gone afterwards.
    """
    if processes.count() == 1:
        return values_nU[np.argsort(rows_n)]

    def share(process):
        return folder / f"share{process}.npz"

    with replacing(share(processes.index())) as temporary, open(temporary, "wb") as file:
        np.savez(file, rows=rows_n, values=values_nU)
    processes.meet()
    found = []
    for process in range(processes.count()):
        with np.load(share(process)) as arrays:
            found.append((arrays["rows"], arrays["values"]))
    processes.meet()
    share(processes.index()).unlink()
    order_N = np.argsort(np.concatenate([rows for rows, _ in found]))
    return np.concatenate([values for rows, values in found if len(rows)])[order_N]
