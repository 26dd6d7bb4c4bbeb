"""The same experiments on stock T5X."""
