"""`poison-t5x study`: many runs that answer one question, side by side, and what they come to."""
