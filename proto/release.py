"""Release number of the driver. A test compares the number with pyproject.toml."""

RELEASE = "1.4.0"
