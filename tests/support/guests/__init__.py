"""Debian guests of `./dev guest`: in namespaces, and on emulated machines."""
