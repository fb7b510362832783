"""How the launcher starts, is replaced, and forks workers."""
