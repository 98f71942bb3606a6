"""What turns evidence, figures, traces and changes into pages; nothing in tests imports it."""
