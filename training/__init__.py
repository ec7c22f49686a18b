"""From batches to trained weights: options, loops, distillation, frozen views, checkpoints."""
