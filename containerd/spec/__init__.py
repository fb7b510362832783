"""The OCI runtime spec of a task: pure functions of the job, the image and the node."""
