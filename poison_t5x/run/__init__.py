"""An experiment's stages in one folder, and the defence of a finished run."""
