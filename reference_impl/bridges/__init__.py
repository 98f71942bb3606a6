"""Between threads, event loops and the file system."""
