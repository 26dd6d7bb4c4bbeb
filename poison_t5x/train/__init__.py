"""Training on any SeqIO mixture: loop, state, step, optimizers, checkpoints, meshes, processes."""
