"""Caches with a time to live."""
