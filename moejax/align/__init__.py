"""When every word and letter of a recording sounds."""
