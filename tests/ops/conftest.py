import pytest

from condconv_jax.ops.methods import tiled


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """The layers of these tests are small: tiles that are smaller still, so that there are some."""
    monkeypatch.setattr(tiled, "TILE_BYTES", 200)
    monkeypatch.setattr(tiled, "MIN_ROWS", 1)
    monkeypatch.setattr(tiled, "MIN_EXAMPLES", 1)
    monkeypatch.setattr(tiled, "MAX_EXAMPLES", 2)
