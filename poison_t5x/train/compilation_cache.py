"""Compiled programs that outlive the process, so that a restart doesn't compile again."""

import os

from poison_t5x.core import checks

# What takes less isn't worth a file, in seconds.
_WORTH = 1.0


def use(directory: str | None) -> None:
    """Has JAX keep its compiled programs in a folder or bucket; None keeps none.

    JAX's cache goes by the program, the compiler's version and the devices: another program is
    compiled, and never mistaken for one that is there.

    Raises:
      InputError: not a path.
    """
    if directory is None:
        return
    checks.path("COMPILATION_CACHE_DIR", directory)
    import jax

    jax.config.update("jax_compilation_cache_dir", os.path.expanduser(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
