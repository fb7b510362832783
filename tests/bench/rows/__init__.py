"""The rows of the bench: each measures one cost of the driver."""
