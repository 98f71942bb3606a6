"""Tests of the comparison itself."""
