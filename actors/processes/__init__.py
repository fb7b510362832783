"""Child processes of the plugin, and connections to launcher and workers."""
