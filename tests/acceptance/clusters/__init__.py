"""The three hosts of an acceptance test, behind one interface."""
