"""Clusters on one machine: network namespaces for nodes and pods, real processes for everything of meshd's."""
