"""`./dev bundle`: the archive with the driver, Python and every library."""
