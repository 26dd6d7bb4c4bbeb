"""A network that a machine can't hold is refused before anything of it is made."""

import pytest

from poison_t5x.core import machine
from poison_t5x.core.errors import InputError
from poison_t5x.model.config import T5Config
from poison_t5x.train import train


@pytest.mark.parametrize(("gigabytes", "fits"), [(1, False), (3, True)])
def test_a_network_must_fit_into_the_machines_memory(monkeypatch, gigabytes, fits):
    model = T5Config(vocab_size=256, emb_dim=1024, mlp_dim=8192, num_heads=16)
    assert 1e9 < 4 * model.num_parameters < 3e9
    monkeypatch.setattr(machine, "memory_bytes", lambda: gigabytes * 10**9)
    if fits:
        return train.check_memory(model)
    with pytest.raises(InputError) as caught:
        train.check_memory(model)
    message = str(caught.value)
    assert f"fits into {gigabytes:.1f} GB" in message
    assert (
        f"{model.num_parameters:,} parameters take {4 * model.num_parameters / 1e9:.1f} GB"
        in message
    )
