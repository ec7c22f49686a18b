"""Videos to batches: registry, list files, segment sampling, joint transforms, the data set."""
