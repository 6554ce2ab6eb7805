"""Shapes and the few records that pass between rooms.

Local arrays end in one letter per dimension, the same letters as in the einsum strings:

    B utterance   S sample        N mel frame   M mel bin    T encoder frame   L token
    D width       H head          K head width  F feed-forward   V vocabulary  W beam
    E expert      X chosen expert R rank        C cohort     P speaker         U gate input

Parameter names are a file format and carry no letters. Masks are boolean, true means real.
"""

import dataclasses
from typing import Any

import jax

Array = Any  # numpy or jax
Config = Any  # ml_collections.ConfigDict, whose keys no type checker knows
Params = dict[str, Any]  # {group: nested dicts of arrays}, groups as in `nn.variables.GROUPS`


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """One fixed-shape batch of utterances.

    `tokens_BL` is the decoder input (prefix, then text); `targets_BL` the same shifted left, ending in exactly one end
    token; `score_BL` is true where a target counts. It is set by position, never by token value: Whisper's padding id
    *is* its end id, so masking by value teaches a model never to stop.
    """

    audio_BS: Array  # float32, 16 kHz
    samples_B: Array  # int32, real samples of each utterance
    tokens_BL: Array  # int32
    targets_BL: Array  # int32
    score_BL: Array  # bool
    label_B: Array  # int32, expert of a known route (cohort, speaker, cluster)
    gate_in_BU: Array  # float32, pooled states of the unadapted encoder (U = 0 when no gate is asked)
    cohort_B: Array  # int32, for the load matrix only; no loss reads it
    real_B: Array  # bool, false on rows that fill up the last batch
    states_BTD: Array | None = None  # encoder states, where they were kept from before; audio_BS is then [B, 0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Route:
    """Expert weights of each utterance. `index_BX` None means dense: X = E and column e belongs to expert e.

    The other fields are what some gates add to that (`nn.gates`); `at` and `ops.mixture` read them.
    """

    weight_BX: Array  # float32; [B, L, E] where a layer's own gate weighed every token
    index_BX: Array | None = None  # int32
    layers: "Route | None" = None  # one for every layer with experts: weight [B, layer, X], index the same
    rank_BER: Array | None = None  # float32, what each rank of an expert is weighed by besides
    logits_BE: Array | None = None  # float32, to which the gates of the decoder's layers add a token's own
    heard_B1: Array | None = None  # float32, times what they add

    def at(self, place: int) -> "Route":
        """The route of one layer, by its place among those with experts."""
        if self.layers is None:
            return self
        index_BNX = self.layers.index_BX
        return Route(self.layers.weight_BX[:, place], None if index_BNX is None else index_BNX[:, place])
