"""Network policy by identity, across clusters. Nothing is enforced yet: see the roadmap in ARCHITECTURE.md."""
