"""Screening of training examples of unknown origin: scores, what they find, how well they do."""
