"""Search for objects without a live owner, and their removal."""
