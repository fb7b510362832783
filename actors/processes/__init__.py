"""The plugin's own child processes: puller and helpers, launcher, workers."""
