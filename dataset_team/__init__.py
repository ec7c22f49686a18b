"""Videos to batches: data registry, list files, segment sampling, joint transforms, the data set."""
