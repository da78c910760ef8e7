"""Engines: where work runs; the same bytes from every one."""
