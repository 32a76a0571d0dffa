"""The code in the README runs as it stands there."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp

BLOCKS = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)


def test_the_layer_in_a_network_of_ones_own():
    names = {}
    exec(BLOCKS[0], names)
    net, images = names["Net"](), jnp.ones((2, 8, 8, 3))
    variables = net.init(jax.random.key(0), images)
    assert variables["params"]["CondConv_0"]["kernel"].shape == (8, 3, 3, 3, 64)
    # The block on recording, applied to this network.
    found = {"model": net, "variables": variables, "images": images}
    exec(BLOCKS[2], found)
    assert found["logits"].shape == (2, 10)
    assert found["recorded"]["routing"]["CondConv_0"]["weights"].shape == (2, 8)


def test_shared_routing():
    import flax.linen as nn

    from condconv_jax.nn import CondConv, Router

    names = {"CondConv": CondConv, "Router": Router, "c": 4, "f": 6}

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            inside = {**names, "x": x}
            exec(BLOCKS[1], inside)
            return inside["x"]

    y, variables = Block().init_with_output(jax.random.key(0), jnp.ones((2, 8, 8, 4)))
    assert y.shape == (2, 8, 8, 6)
    assert set(variables["params"]) == {"Router_0", "CondConv_0", "CondConv_1"}


def test_networks_by_name():
    names = {}
    first, last = BLOCKS[3].rsplit("\n", 2)[:2]
    exec(first, names)
    assert names["model"].num_experts == 32
    exec(last, names)
    assert names["model"].num_experts == 8


def test_every_network_and_relative_is_named():
    from condconv_jax import models
    from condconv_jax.models.layers import COND_LAYERS

    text = Path("README.md").read_text()
    for name in models.names():
        assert f"`{name}`" in text, name
    for name in set(COND_LAYERS) - {"condconv"}:
        assert f'"{name}"' in text, name


def test_one_image_at_a_time():
    from condconv_jax import models

    names = {"models": models, "params": {"classifier": {"kernel": jnp.ones((8, 3, 4))}}}
    exec(BLOCKS[4], names)
    assert names["params"]["classifier"]["kernel"].dtype == jnp.int8
    assert names["model"].routing.top_k == 4


def test_every_block_is_tried():
    assert len(BLOCKS) == 5


TEXTS = [
    *Path().glob("*.md"),
    *(path for folder in ("docs", "configs", "condconv_jax") for path in Path(folder).rglob("*.*")),
]


def test_documents_that_are_named_are_there():
    by_path = r"(?:docs|configs)/[\w/]+\.(?:md|py)"
    by_link = r"(?<=\]\()(?!http)[^)]+"
    patterns = {".py": by_path, ".md": f"{by_path}|{by_link}"}
    for path in TEXTS:
        if path.suffix not in patterns:
            continue
        for target in re.findall(patterns[path.suffix], path.read_text()):
            assert Path(target).exists() or (path.parent / target).exists(), (path, target)
