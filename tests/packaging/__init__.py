"""The Debian package, installed in guests, and the wheel of pip."""
