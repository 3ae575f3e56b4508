"""Services of several clusters as one: who takes part, with which backends, and why not."""
