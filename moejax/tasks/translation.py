"""Text translation by a small transformer trained on the corpus' own parallel text: the offline translator."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from moejax.decode.greedy import greedy
from moejax.nn import functional
from moejax.nn.translator import Translator
from moejax.nn.variables import Init
from moejax.nn.whisper import WhisperConfig
from moejax.ops import losses
from moejax.types import Array, Params


def configure(vocab_size: int, *, width: int, layers: int, heads: int, max_tokens: int) -> WhisperConfig:
    return WhisperConfig(
        width,
        layers,
        layers,
        heads,
        heads,
        2 * width,
        2 * width,
        vocab_size=vocab_size,
        max_target_positions=max_tokens,
        mask_padding=True,
    )


def init(config: WhisperConfig, seed: int, saved: Params | None = None) -> tuple[functional.GraphDef, Params]:
    """`(graphdef, params)`, fresh or as saved."""
    graphdef, recipe = functional.split(Translator(config, init=Init(seed)))
    return graphdef, functional.materialise(recipe) if saved is None else saved


def make_loss(graphdef: functional.GraphDef) -> Callable[..., tuple[Array, dict[str, Array]]]:
    """`loss_fn(params, batch, key)` on the dict of `Pairs`."""

    def loss_fn(params, batch, key):
        del key
        model = functional.merge(graphdef, params)
        states_BTD = model.encode(batch["source_BT"], batch["mask_BT"])
        logits_BLV = model.decode(batch["tokens_BL"], states_BTD, batch["mask_BT"])
        loss, _, count = losses.token_cross_entropy(logits_BLV, batch["targets_BL"], batch["score_BL"])
        hit_BL = (logits_BLV.argmax(-1) == batch["targets_BL"]) & batch["score_BL"]
        return loss, {"accuracy": hit_BL.sum() / count}

    return loss_fn


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Batches of parallel token lists of one fixed shape; index -1 is filler."""

    source: list[list[int]]
    target: list[list[int]]  # prefix, text, end token
    prefix: int
    eot: int
    length: int

    def __call__(self, bucket: int, rows: Sequence[int]) -> dict[str, np.ndarray]:
        del bucket
        B, L = len(rows), self.length
        source_BT, tokens_BL = (np.full((B, L), self.eot, np.int32) for _ in range(2))
        targets_BL = tokens_BL.copy()
        mask_BT, score_BL = np.zeros((B, L), bool), np.zeros((B, L), bool)
        mask_BT[:, 0] = True
        for b, row in enumerate(rows):
            if row < 0:
                continue
            source, target = self.source[row], self.target[row]
            source_BT[b, : len(source)], mask_BT[b, : len(source)] = source, True
            tokens_BL[b, : len(target) - 1], targets_BL[b, : len(target) - 1] = target[:-1], target[1:]
            score_BL[b, self.prefix - 1 : len(target) - 1] = True
        return {
            "source_BT": source_BT,
            "mask_BT": mask_BT,
            "tokens_BL": tokens_BL,
            "targets_BL": targets_BL,
            "score_BL": score_BL,
        }


class Offline:
    """Translator with the interface of `moejax.mt`: `.translate(texts) -> list[str]`."""

    name = "offline"

    def __init__(
        self,
        graphdef: functional.GraphDef,
        params: Params,
        tokenizer: Any,
        *,
        prefix: list[int],
        length: int,
        batch_size: int = 64,
    ):
        """`tokenizer`: a `text.tokenizer.Tokenizer`."""
        self.params, self.tokenizer, self.length, self.batch_size = params, tokenizer, length, batch_size
        room = length - len(prefix) + 1

        @jax.jit
        def run(params, source_BT, mask_BT):
            model = functional.merge(graphdef, params)
            states_BTD = model.encode(source_BT, mask_BT)
            return greedy(model, states_BTD, prefix, max_tokens=room, eot=tokenizer.eot, mask_BT=mask_BT)

        self._run = run

    def translate(self, texts: list[str], progress: Callable[[int], None] | None = None) -> list[str]:
        """Translations in order; an empty text stays empty. Sources longer than the model's room are cut at it."""
        out = [""] * len(texts)
        todo = [i for i, text in enumerate(texts) if text.strip()]
        for at in range(0, len(todo), self.batch_size):
            rows = todo[at : at + self.batch_size]
            source = [self.tokenizer.encode(texts[i])[: self.length] for i in rows]
            source_BT = np.full((self.batch_size, self.length), self.tokenizer.eot, np.int32)
            mask_BT = np.zeros((self.batch_size, self.length), bool)
            mask_BT[:, 0] = True
            for b, ids in enumerate(source):
                source_BT[b, : len(ids)], mask_BT[b, : len(ids)] = ids, True
            decoded = self._run(self.params, source_BT, mask_BT)
            tokens_BL, lengths_B = np.asarray(decoded.tokens_BL), np.asarray(decoded.lengths_B)
            for b, i in enumerate(rows):
                out[i] = self.tokenizer.decode(tokens_BL[b, : lengths_B[b]])
            if progress is not None:
                progress(len(rows))
        return out
