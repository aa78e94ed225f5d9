"""The exact placer: rectangles of fixed time into the least height."""
