"""Images by name and owner: pulled, held, and removed when unused."""
