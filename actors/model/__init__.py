"""Values without behaviour, shared by all other folders of actors."""
