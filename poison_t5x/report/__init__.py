"""The page and the table that a run ends in; reads result files only."""
