"""The load of the experts while they train: who is dying, whether the choice collapses."""

import collections
import functools

import numpy as np


class LoadMonitor:
    """The load of each expert over the last logged steps, by cohort; called with the metrics of a step, returns alarms.

    An alarm is raised when an expert's share of the weight over the window falls under 1 / (10 E): it is dying, or
    dead. Dense routing hardly lets a share fall so low, so there is another for the choice: when an expert's weight is
    the largest for fewer utterances than that, or for more than half-way from its prior to all of them. That one is
    said again only when other experts are concerned.
    """

    def __init__(self, num_experts: int, cohorts, prior_E, window: int = 10):
        self.num_experts, self.cohorts, self.prior_E = num_experts, list(cohorts), np.asarray(prior_E)
        self.window = window
        self.recent, self.recent_top = collections.deque(maxlen=window), collections.deque(maxlen=window)
        self.said = None  # the experts that the last alarm about the choice was about

    def __call__(self, step, metrics):
        if "load_EC" not in metrics:
            return []
        self.recent.append(np.asarray(metrics["load_EC"]))
        self.recent_top.append(np.asarray(metrics["top1_E"]))
        if len(self.recent) < self.window:
            return []
        load_E = self.load()
        dying = [e for e in range(self.num_experts) if load_E[e] < 0.1 / self.num_experts]
        alarms = [f"ALARM: expert {e} has {100 * load_E[e]:.2f} % of the load; it is dying" for e in dying]
        return alarms + self._choice()

    def _choice(self) -> list[str]:
        top_E = self.top1()
        first, idle = int(top_E.argmax()), [e for e in range(self.num_experts) if top_E[e] < 0.1 / self.num_experts]
        collapsed = top_E[first] > 0.5 * (1 + self.prior_E[first])
        now, before = (first, idle) if collapsed or idle else None, self.said
        self.said = now
        if now is None or now == before:
            return []
        never = f"; (almost) never: {', '.join(map(str, idle))}" if idle else ""
        return [
            f"ALARM: the choice collapses: expert {first} is the top of {100 * top_E[first]:.1f} % of the utterances"
            f" (prior {100 * self.prior_E[first]:.1f} %){never}"
        ]

    def seen(self) -> bool:
        return bool(self.recent)

    def matrix(self) -> np.ndarray:
        """load_EC: utterance shares summed over the window."""
        return functools.reduce(np.add, self.recent) if self.recent else np.zeros((self.num_experts, len(self.cohorts)))

    def load(self) -> np.ndarray:
        """load_E, sums to one."""
        matrix_EC = self.matrix()
        return matrix_EC.sum(1) / max(matrix_EC.sum(), 1e-9)

    def top1(self) -> np.ndarray:
        """Share of the window's utterances whose largest weight is each expert's [E]."""
        count_E = functools.reduce(np.add, self.recent_top) if self.recent_top else np.zeros(self.num_experts)
        return count_E / max(count_E.sum(), 1e-9)

    def table(self) -> str:
        """Load matrix expert x cohort (each cohort's column sums to 100 %), for people."""
        return load_table(self.matrix(), self.cohorts, self.prior_E, self.top1())


def load_table(load_EC, cohorts, prior_E, top1_E) -> str:
    """The load matrix as text: rows experts, columns cohorts in percent of the cohort's routing weight, then the total,
    the prior, and the percentage of utterances whose largest weight the expert has.
    """
    column = load_EC / np.maximum(load_EC.sum(0, keepdims=True), 1e-9)
    total_E = load_EC.sum(1) / max(load_EC.sum(), 1e-9)
    width = max([6] + [len(c) + 1 for c in cohorts])
    lines = ["  load %   " + "".join(f"{name:>{width}}" for name in (*cohorts, "all", "prior", "top-1"))]
    for e, row in enumerate(column):
        cells = (*row, total_E[e], prior_E[e], top1_E[e])
        lines.append(f"  expert {e:<2}" + "".join(f"{100 * value:>{width}.1f}" for value in cells))
    entropy = -(total_E * np.log(total_E + 1e-9)).sum()
    lines.append(
        f"  maximal load {total_E.max():.3f}, entropy {entropy:.3f} of {np.log(len(total_E)):.3f},"
        f" largest top-1 share {max(top1_E):.3f}"
    )
    return "\n".join(lines)
