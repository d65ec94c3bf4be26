"""What tests share: tiny models, federations on disk, processes, and Flower in memory."""
