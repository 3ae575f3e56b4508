"""The daemon of a node: what all clusters say goes in, this node's datapath comes out."""
