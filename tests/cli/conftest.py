"""Commands run in this process, in an empty folder."""

import logging
import signal
import sys
import warnings

import pytest


@pytest.fixture(autouse=True)
def _process_state(tmp_path, monkeypatch):
    """Puts back what a command sets for its whole process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setattr(sys, "path", [*sys.path])
    level, handler = logging.getLogger().level, signal.getsignal(signal.SIGTERM)
    yield
    logging.getLogger().setLevel(level)
    signal.signal(signal.SIGTERM, handler)
