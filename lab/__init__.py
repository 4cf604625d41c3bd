"""lab: whole fabrics in network namespaces."""
