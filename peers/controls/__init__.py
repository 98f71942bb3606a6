"""Rows that fail, each the check that is to find it, and one that holds all."""
