"""Where the known corpora of talks and of single speakers keep their sound, turns, words and parts."""
