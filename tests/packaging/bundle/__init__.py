"""The archive of `./dev bundle` in guests of Debian."""
