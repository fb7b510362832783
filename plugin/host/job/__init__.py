"""Job files in HCL and JSON, read into task configurations."""
