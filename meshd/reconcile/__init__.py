"""Makes what a target holds equal to what is desired: idempotent, incremental, in publish order."""
