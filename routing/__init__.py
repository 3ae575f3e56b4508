"""How packets reach the pods of other clusters: the plan (pure) and the devices and routes that realise it."""
