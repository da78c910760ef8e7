"""Ops: arrays in, arrays out; no document, no file, no model."""
