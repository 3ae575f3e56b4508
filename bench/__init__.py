"""Programs that measure: each prints one table and writes build/bench/<name>.json."""
