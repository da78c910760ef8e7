"""Training: a corpus and pairs to an encoder."""
