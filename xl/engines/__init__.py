"""Engines: what answers asks."""
