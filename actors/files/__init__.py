"""Work on files in reach of other users or tasks, without following links."""
