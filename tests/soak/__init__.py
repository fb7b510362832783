"""`./dev soak`: many tasks live their lives while their plugin is killed again and again."""
