"""The story of ClusterMesh with real packets: steps, what was seen, and what others saw of it."""
