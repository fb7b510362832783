"""The release of this driver; pyproject.toml agrees, a test compares."""

RELEASE = "1.2.0"
