"""Examples as SeqIO tasks and mixtures, and the batches that training reads."""
