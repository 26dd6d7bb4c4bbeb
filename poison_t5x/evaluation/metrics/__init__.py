"""A file a metric of held-out tasks, see `evaluation.metric`."""
