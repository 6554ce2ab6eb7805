"""How well a recording is pronounced."""
