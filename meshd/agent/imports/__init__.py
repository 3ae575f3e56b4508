"""EndpointSlices of the own cluster for backends of others: the DNS name of a headless service then has them too."""
