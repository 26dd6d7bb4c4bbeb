"""The ground of every room: errors, checks of settings, stage records, gin, progress."""
