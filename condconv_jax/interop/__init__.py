"""Weights in and out (floor 4): TensorFlow's, timm's, and static networks' (upcycling)."""

from condconv_jax.interop.official_networks import OFFICIAL, OfficialNetwork, read_official
from condconv_jax.interop.state_dicts import read_state_dict, write_safetensors
from condconv_jax.interop.tensor_bundle import list_tensors, read_tensors
from condconv_jax.interop.tensorflow import from_tensorflow
from condconv_jax.interop.timm import from_timm, read_timm, to_timm
from condconv_jax.interop.timm_networks import TIMM, TimmNetwork
from condconv_jax.interop.timm_networks import find as find_timm
from condconv_jax.interop.upcycling import NOISE, upcycle

__all__ = [
    "NOISE",
    "OFFICIAL",
    "TIMM",
    "OfficialNetwork",
    "TimmNetwork",
    "find_timm",
    "from_tensorflow",
    "from_timm",
    "list_tensors",
    "read_official",
    "read_state_dict",
    "read_tensors",
    "read_timm",
    "to_timm",
    "upcycle",
    "write_safetensors",
]
