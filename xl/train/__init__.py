"""Training on a run's dataset: tokens, packing, loss, DeepSpeed, checkpoints, export."""
