"""Who speaks when, and who said what."""
