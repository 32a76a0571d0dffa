"""The same weights in timm and here: the same logits and routing, and back again."""

import importlib.util

import jax
import numpy as np
import pytest

from condconv_jax import data, interop
from condconv_jax.interop import timm_networks

MISSING = "install the extra `parity` (torch and timm) to compare with timm itself"
torch = pytest.importorskip("torch", reason=MISSING)
if importlib.util.find_spec("timm") is None:
    pytest.skip(MISSING, allow_module_level=True)

# After the skip: without torch and timm they cannot be imported.
import timm_parity  # noqa: E402
from timm_parity import compare, convert, make_timm, run_timm, state_of, timm  # noqa: E402

FAST = ("tf_efficientnet_cc_b0_4e", "mobilenetv2_100", "resnet50")
# Of the largest value. Float64 shows that the arithmetic is the same, sums in another order add
# 1e-16 each; float32's are a billion times that, and ReLUs between them switch.
TOLERANCES = {"float64": 1e-9, "float32": 1e-4}


def every_network(dtypes):
    return [
        pytest.param(
            name,
            dtype,
            id=f"{name}-{dtype}",
            # One network of the three shows that float32 is no worse than it has to be.
            marks=()
            if (name in FAST and dtype == "float64") or name == "mobilenetv2_100"
            else pytest.mark.slow,
        )
        for name in timm_networks.names()
        for dtype in dtypes
    ]


@pytest.mark.parametrize(("name", "dtype"), every_network(TOLERANCES))
def test_logits_and_routing(name, dtype):
    difference = compare(name, dtype)
    assert difference.logits <= TOLERANCES[dtype]
    assert difference.worst_routing <= TOLERANCES[dtype]
    if "_cc_" in name:
        # Were images or experts routed alike, agreement would say little: these are many times
        # what is tolerated.
        images, experts = difference.varies
        assert images > 2e-3
        assert experts > 0.05
    assert len(difference.routing) == (0 if "_cc_" not in name else 8 if "_b0_" in name else 11)


@pytest.mark.slow
@pytest.mark.parametrize("size", [65, 75, 81])
@pytest.mark.parametrize("name", ["tf_efficientnet_cc_b0_4e", "efficientnet_cc_b0_4e", "resnet50"])
def test_odd_sizes_pad_alike(name, size):
    difference = compare(name, "float64", size)
    assert max(difference.logits, difference.worst_routing) <= TOLERANCES["float64"]


@pytest.mark.parametrize("name", timm_networks.names())
def test_images_are_those_that_timm_s_default_weights_expect(name):
    network, theirs = timm_networks.find(name), timm.models.get_pretrained_cfg(name)
    mean, std = data.STATISTICS[network.statistics]
    assert (mean, std) == (theirs.mean, theirs.std)
    assert theirs.input_size == (3, network.image_size, network.image_size)


@pytest.mark.parametrize("name", FAST)
def test_there_and_back(name):
    network = make_timm(name)
    state = state_of(network)
    model, variables = convert(name, state, "float32", 64)
    back = interop.to_timm(name, model, variables)
    assert back.keys() == state.keys()
    for key, array in back.items():
        assert array.dtype == state[key].dtype
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(array, state[key], strict=True)
    images = timm_parity.images_of(64)
    want, _ = run_timm(network, images)
    fresh = timm.create_model(name).eval()
    fresh.load_state_dict({k: torch.from_numpy(v) for k, v in back.items()}, strict=True)
    np.testing.assert_array_equal(run_timm(fresh, images)[0], want)


def assert_same(got, want):
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_a_file_for_timm_and_one_of_timm(tmp_path):
    """timm loads what we write, by its own `checkpoint_path`; we load what torch writes."""
    name, path = "mobilenetv2_100", tmp_path / "network.safetensors"
    network = make_timm(name)
    model, variables = convert(name, state_of(network), "float32", 64)
    interop.write_safetensors(path, interop.to_timm(name, model, variables))
    loaded = timm.create_model(name, checkpoint_path=str(path)).eval()
    images = timm_parity.images_of(64)
    np.testing.assert_array_equal(run_timm(loaded, images)[0], run_timm(network, images)[0])

    torch.save(network.state_dict(), tmp_path / "network.pth")
    for file in ("network.safetensors", "network.pth"):
        read_model, read = interop.read_timm(tmp_path / file, f"{name}.in1k")
        assert read_model.clone(dtype="float32") == model
        assert_same(read, variables)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_files(dtype, suffix, tmp_path):
    """Weights saved in 16 bits are those values in float32, to the bit."""
    import safetensors.torch

    name, path = "mobilenetv2_035", tmp_path / f"network.{suffix}"
    low = {
        key: tensor.to(getattr(torch, dtype)) if tensor.is_floating_point() else tensor
        for key, tensor in make_timm(name).state_dict().items()
    }
    if suffix == "pth":
        torch.save(low, path)
    else:
        safetensors.torch.save_file(low, path)
    _, variables = interop.read_timm(path, name)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    widened = {key: tensor.float().numpy() for key, tensor in low.items()}
    assert_same(variables, convert(name, widened, "float32", 64)[1])
