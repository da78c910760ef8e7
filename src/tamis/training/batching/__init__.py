"""Batches: which examples go together, in an order that the seed alone gives."""
