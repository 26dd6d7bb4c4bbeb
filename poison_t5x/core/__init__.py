"""What every room uses: errors, checks of settings, stage records, gin, progress."""
