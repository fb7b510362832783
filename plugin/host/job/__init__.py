"""Job files: HCL and JSON become task configurations."""
