"""Config sections that several stages read, and keys of all stages' sections that change no result."""

NOT_RESULTS = ("*.log_every", "*.checkpoint_every")

SECTIONS = {
    "mixture": {
        "kind": "lora",  # lora; dora: with a magnitude per output
        # Where experts live: shell-style patterns over parameter paths of linear layers, or (pattern, rank, alpha)
        # where these are not the common ones; the first that matches a layer counts.
        "targets": ("decoder/layers/*/*attn/[qv]", "decoder/layers/*/fc?"),
        "rank": 4,  # of one expert
        "alpha": 8.0,  # update is scaled by alpha / rank
        "stabilised": False,  # alpha / sqrt(rank) instead
        "shared_rank": 0,  # rank of an expert that is always on; 0 for none
        # topk: softmax over the chosen; dense: E * softmax over all; threshold: those of probability `threshold` or
        # more; top_p: the fewest that have `top_p` together; sigmoid: 2 * sigmoid, each on its own
        "routing": "topk",
        "top_k": 2,  # of topk; of threshold and top_p the most that may be chosen
        "threshold": 0.1,
        "top_p": 0.9,
        "even_speakers": False,  # experts, mixture and adapters hear every training speaker about equally often
        "expert_dropout": 0.0,  # dropout on the input of the low-rank pairs, in training only
    },
    "mesh": {"data": -1, "fsdp": 1, "expert": 1, "model": 1},  # devices along each axis; -1 takes what is left
    "runtime": {
        # On a CPU, one XLA device uses little more than one core outside its matrix products: two devices with half the
        # batch each use both. 0 leaves JAX's own number. Has no effect on accelerators.
        "cpu_devices": 0,
        "compilation_cache": "~/.cache/moejax/xla",  # "" turns it off
        "workers": 0,  # loader processes; 0 reads in the training process
        "audio_cache_bytes": 2_000_000_000,  # decoded audio kept in memory
        # Disk for encoder states, kept where training leaves the encoder and what it hears as they are; 0: never
        "encoder_cache_bytes": 20_000_000_000,
        "max_skipped": 20,  # updates left out because loss or gradient is not finite, before training stops; 0: never
        "watchdog": 3600.0,  # seconds without a sign of life after which a run counts as stuck and ends; 0: never
        "heartbeat": 60.0,  # of several processes: seconds of silence after which one counts as lost, and all end
        "stop_within": 25.0,  # seconds from SIGTERM to the end, whatever the run is doing; 0: as long as it takes
        "force": False,  # see --force
    },
    "export": {"license": ""},  # of exported models, for their cards: the corpus and the base decide it
}
