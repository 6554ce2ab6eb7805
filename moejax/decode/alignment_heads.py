"""Which cross-attention heads of the published checkpoints follow the audio, as (layer, head) pairs.

Facts published with the checkpoints: the masks of openai/whisper (whisper/__init__.py), which are also the lists
`alignment_heads` in the generation_config.json of the Hugging Face folders.
"""

# fmt: off
PUBLISHED = {
    "tiny.en": [(1, 0), (2, 0), (2, 5), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4)],
    "tiny": [(2, 2), (3, 0), (3, 2), (3, 3), (3, 4), (3, 5)],
    "base.en": [(3, 3), (4, 7), (5, 1), (5, 5), (5, 7)],
    "base": [(3, 1), (4, 2), (4, 3), (4, 7), (5, 1), (5, 2), (5, 4), (5, 6)],
    "small.en": [
        (6, 6), (7, 0), (7, 3), (7, 8), (8, 2), (8, 5), (8, 7), (9, 0), (9, 4), (9, 8), (9, 10), (10, 0), (10, 1),
        (10, 2), (10, 3), (10, 6), (10, 11), (11, 2), (11, 4),
    ],
    "small": [(5, 3), (5, 9), (8, 0), (8, 4), (8, 7), (8, 8), (9, 0), (9, 7), (9, 9), (10, 5)],
    "medium.en": [
        (11, 4), (14, 1), (14, 12), (14, 14), (15, 4), (16, 0), (16, 4), (16, 9), (17, 12), (17, 14), (18, 7),
        (18, 10), (18, 15), (20, 0), (20, 3), (20, 9), (20, 14), (21, 12),
    ],
    "medium": [(13, 15), (15, 4), (15, 15), (16, 1), (20, 0), (23, 4)],
    "large-v1": [(9, 19), (11, 2), (11, 4), (11, 17), (22, 7), (22, 11), (22, 17), (23, 2), (23, 15)],
    "large-v2": [
        (10, 12), (13, 17), (16, 11), (16, 12), (16, 13), (17, 15), (17, 16), (18, 4), (18, 11), (18, 19), (19, 11),
        (21, 2), (21, 3), (22, 3), (22, 9), (22, 12), (23, 5), (23, 7), (23, 13), (25, 5), (26, 1), (26, 12),
        (27, 15),
    ],
    "large-v3": [(7, 0), (10, 17), (12, 18), (13, 12), (16, 1), (17, 14), (19, 11), (21, 4), (24, 1), (25, 6)],
    "large-v3-turbo": [(2, 4), (2, 11), (3, 3), (3, 6), (3, 11), (3, 14)],
}
# fmt: on
# Names that stand for another checkpoint
PUBLISHED["large"] = PUBLISHED["large-v3"]
PUBLISHED["turbo"] = PUBLISHED["large-v3-turbo"]
_SMALLER = (("tiny", 4, 384), ("base", 6, 512), ("small", 12, 768), ("medium", 24, 1024))
_SIZES = {  # (decoder layers, width, vocabulary) that one checkpoint alone has; large-v1 and large-v2 share theirs
    **{(layers, width, 51864): f"{name}.en" for name, layers, width in _SMALLER},
    **{(layers, width, 51865): name for name, layers, width in _SMALLER},
    (32, 1280, 51866): "large-v3",
    (4, 1280, 51866): "large-v3-turbo",
}


def of_size(config) -> list[tuple[int, int]] | None:
    """The pairs of the published checkpoint of this size; None for sizes that none has, or several have."""
    size = (config.decoder_layers, config.d_model, config.vocab_size)
    return PUBLISHED[_SIZES[size]] if size in _SIZES else None
