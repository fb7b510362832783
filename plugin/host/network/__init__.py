"""Network namespaces, CNI and published ports of an allocation."""
