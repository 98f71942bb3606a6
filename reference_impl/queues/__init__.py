"""In-process and file-fed queues."""
