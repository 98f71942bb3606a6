"""Realistic edits of each component, and the guarantees that each of them breaks.

An edit is what a person, or an assistant, does to a copied file: a few lines, meant to simplify
it. `python -m tests.edits ttl_cache` makes each of them in a copy, proves the copy, compares what
broke with what should, and records it in docs/evidence/edits.json.
"""
