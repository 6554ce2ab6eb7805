"""The other engines, each in a process of its own (`python -m moejax.bench.peers.NAME`) with its own libraries alone.

They read the same folder of weights and the same inputs as `bench.ours`, and use every core that it uses. Installed by
the extra `peers`.
"""
