"""Vetted concurrency components for threads and asyncio, one file each."""
