"""`./dev release VERSION`: checks, builds and checksums of a release."""
