"""The inside of the puller process: sources, content store, unpacking."""
