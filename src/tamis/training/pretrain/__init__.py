"""Pre-training: from raw text alone."""
