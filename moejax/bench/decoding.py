"""The one place where the benchmark calls moejax's decoding: greedy, from encoder states to a set number of tokens."""

from moejax.decode.greedy import greedy


def search(model, states_BTD, *, prefix, tokens: int, eot: int, suppress, route=None):
    """tokens_BL of exactly `tokens` tokens: the end token is among the suppressed ones."""
    return greedy(model, states_BTD, prefix, max_tokens=tokens, eot=eot, route=route, suppress=suppress).tokens_BL
