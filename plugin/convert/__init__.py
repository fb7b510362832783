"""Converter of job files of Nomad's docker and podman drivers: rules, and edits of HCL and JSON."""
