"""Values without behaviour that every other folder of actors shares."""
