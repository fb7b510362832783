"""Files and directories that other users or tasks can reach, handled without following links."""
