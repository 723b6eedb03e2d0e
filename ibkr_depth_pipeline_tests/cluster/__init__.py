"""Against a real Redis Cluster and real Sentinels, with servers that are killed."""
