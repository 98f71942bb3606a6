"""Rows that break one promise each: every check must catch its own."""
