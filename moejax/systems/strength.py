"""How much of what was learnt a system is read with: `evaluate.strength`.

What adapters learn of a few hundred utterances they pay for with what the published model knew of everybody else. Half
of an update keeps most of the gain where it was learnt and most of what was known elsewhere (Wortsman et al. 2022,
"Robust fine-tuning of zero-shot models", there between whole networks).
"""

import dataclasses

import jax

from moejax.errors import BadValue
from moejax.nn import functional
from moejax.systems.system import Opened
from moejax.tasks.hypernetwork import Hyper
from moejax.types import Params

_LINEAR = ("B", "shared_B", "magnitude")  # of an expert's arrays those that its update is a multiple of


def at(opened: Opened, strength: float, base: Params) -> Opened:
    """The system with so much of its update; `base` are the parameters it started from. Errors: BadValue for a
    hypernetwork, whose updates are made anew for every voice.
    """
    network = opened.network
    if strength == 1 or (network.mixture is None and opened.role != "full"):
        return opened
    params = dict(network.params)
    if opened.role == "full":
        params["backbone"] = jax.tree.map(
            lambda own, before: before + strength * (own - before), params["backbone"], base["backbone"]
        )
    elif isinstance(network.mixture, Hyper):
        raise BadValue(f"evaluate.strength is {strength:g}; {opened.name} is a hypernetwork and has no part of itself")
    else:
        flat = functional.paths(params["expert"])
        scaled = {path: leaf * strength if path.split("/")[-1] in _LINEAR else leaf for path, leaf in flat.items()}
        params["expert"] = functional.nest(scaled)
    return dataclasses.replace(opened, network=dataclasses.replace(network, params=params))
