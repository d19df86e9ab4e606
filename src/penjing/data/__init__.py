"""Documents to batches: shards, order, packing, mixture."""
