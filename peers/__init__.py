"""Popular libraries under the same neutral checks, each cell executed in a process of its own."""
