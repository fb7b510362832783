"""The Debian package, installed in guests."""
