"""`./dev soak`: many tasks run while their plugin is killed again and again."""
