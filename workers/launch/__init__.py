"""Start, replacement and memory of the launcher, and the first steps of its forked children."""
