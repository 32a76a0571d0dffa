"""What the tests of the ops share: drawn convolutions, their arrays, tolerances, a mesh."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import AxisType

from condconv_jax import ops

# Each example compiles its own programs, so few and rich ones; always the same ones.
settings.register_profile("ops", deadline=None, derandomize=True, max_examples=6, database=None)
settings.load_profile("ops")

# The largest error allowed, over the sum of the magnitudes of the terms that make up the entry
# (the same op on absolute values), which is what rounding errors are relative to. All methods
# compute the same multilinear form, so nothing but rounding tells them apart.
TOLERANCE = {
    # Sums of at most a few hundred products of unit roundoff 1.1e-16.
    "float64": 2e-15,
    # Unit roundoff 6e-8; XLA's convolutions add up in any order.
    "float32": 1e-6,
    # Unit roundoff 2^-8, sums in float32. A value is rounded at most four times on its way, by half
    # of that on average: routing, mixed kernel, the output of one expert, the output; a gradient
    # in the same places.
    "bfloat16": 4 * 2.0**-9,
}

# One convolution per method that it can run, (input channels, kernel shape, keywords).
RUNNABLE: dict[str, tuple[int, tuple[int, ...], dict[str, Any]]] = {
    "reference": (4, (2, 3, 2, 6), {"feature_group_count": 2, "strides": (2, 1)}),
    "mixture": (4, (2, 3, 2, 6), {"feature_group_count": 2, "strides": (2, 1)}),
    "pointwise": (3, (1, 1, 3, 4), {"strides": (1, 2), "padding": ((0, 0), (1, 0))}),
    "spatial": (4, (3, 2, 2, 6), {"feature_group_count": 2, "strides": (2, 1)}),
    "mapped": (4, (3, 2, 4, 6), {"strides": (2, 1), "kernel_dilation": (1, 2)}),
    "tiled": (4, (3, 2, 4, 20), {"strides": (2, 1)}),
    "depthwise": (3, (3, 2, 1, 6), {"feature_group_count": 3, "strides": (2, 1)}),
}
# Where a C++ compiler is; there is float32 only.
CPP = {"native": "depthwise", "fused": "tiled"}
if ops.native.available():
    RUNNABLE |= {name: RUNNABLE[like] for name, like in CPP.items()}


# Of what `value_and_gradients` returns.
NAMES = ("value", "gradient by x", "gradient by experts", "gradient by routing")


@dataclasses.dataclass(frozen=True)
class Case:
    """A convolution: shapes, and the keywords of `ops.cond_conv`."""

    x_shape: tuple[int, int, int, int]
    kernel_shape: tuple[int, int, int, int]
    num_experts: int
    strides: int | tuple[int, int] = 1
    padding: Any = "SAME"
    kernel_dilation: int | tuple[int, int] = 1
    feature_group_count: int = 1
    seed: int = 0

    @property
    def keywords(self) -> dict[str, Any]:
        return {
            "strides": self.strides,
            "padding": self.padding,
            "kernel_dilation": self.kernel_dilation,
            "feature_group_count": self.feature_group_count,
        }

    def methods(self) -> list[str]:
        """The methods that have to run it, by the definition of each."""
        kernel, groups = self.kernel_shape, self.feature_group_count
        names = ["reference", "mixture", "spatial", "auto", "portable"]
        if "native" in RUNNABLE:
            names.append("native")
        if kernel[:2] == (1, 1) and groups == 1:
            names.append("pointwise")
        if groups == 1:
            names += ["mapped", "tiled"]
            if "fused" in RUNNABLE:
                names.append("fused")
        if groups == self.x_shape[3]:
            names.append("depthwise")
        return names

    def arrays(self, dtype: Any = "float32") -> tuple[jax.Array, jax.Array, jax.Array]:
        """x, experts and routing."""
        rng = np.random.default_rng(self.seed)
        shapes = (
            self.x_shape,
            (self.num_experts, *self.kernel_shape),
            (self.x_shape[0], self.num_experts),
        )
        return tuple(jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes)  # type: ignore[return-value]


def runnable(method: str, batch: int = 3, experts: int = 2) -> Case:
    """A small convolution that the method can run."""
    channels, kernel, keywords = RUNNABLE[method]
    return Case((batch, 5, 4, channels), kernel, experts, **keywords)  # type: ignore[arg-type]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Convolutions of every kind: dense, grouped, depthwise, 1x1, with all paddings."""
    per_axis = lambda low, high: st.tuples(st.integers(low, high), st.integers(low, high))
    kind = draw(st.sampled_from(["depthwise", "depthwise", "grouped", "dense", "pointwise"]))
    kh, kw = (1, 1) if kind == "pointwise" else draw(per_axis(1, 3))
    if kind == "depthwise":
        channels, groups = (c := draw(st.integers(1, 3))), c
        features = c * draw(st.integers(1, 2))
    elif kind == "grouped":
        groups = 2
        channels, features = 2 * draw(st.integers(1, 2)), 2 * draw(st.integers(1, 3))
    else:
        groups, channels, features = 1, draw(st.integers(1, 3)), draw(st.integers(1, 3))
    strides = draw(per_axis(1, 3))
    dilation = draw(st.sampled_from([1, (2, 1), (1, 2), (2, 3)]))
    dh, dw = (dilation, dilation) if isinstance(dilation, int) else dilation
    window = ((kh - 1) * dh + 1, (kw - 1) * dw + 1)
    extra = draw(per_axis(0, 4))
    padding = draw(
        st.sampled_from(
            ["SAME", "SAME_LOWER", "VALID", 1, (0, 2), ((2, 0), (1, 3)), ((0, 1), (0, 0))]
        )
    )
    return Case(
        (draw(st.integers(1, 3)), window[0] + extra[0], window[1] + extra[1], channels),
        (kh, kw, channels // groups, features),
        draw(st.integers(1, 3)),
        strides if draw(st.booleans()) else strides[0],
        padding,
        dilation,
        groups,
        draw(st.integers(0, 99)),
    )


def xla_conv(x: jax.Array, kernel: jax.Array, case: Case) -> jax.Array:
    """The convolution by XLA, its arguments spelled out independently of `ops.geometry`."""
    pair = lambda v: (v, v) if isinstance(v, int) else v
    padding = case.padding
    if not isinstance(padding, str):
        padding = [pair(p) for p in pair(padding)]
    return lax.conv_general_dilated(
        x,
        kernel,
        pair(case.strides),
        padding,
        rhs_dilation=pair(case.kernel_dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=case.feature_group_count,
    )


def loop_conv(x: jax.Array, experts: jax.Array, routing: jax.Array, case: Case) -> jax.Array:
    """Equation 1 read aloud: for each example, the sum of its experts' convolutions."""
    rows = []
    for b in range(x.shape[0]):
        outputs = [xla_conv(x[b : b + 1], expert, case) for expert in experts]
        rows.append(sum(routing[b, e] * y for e, y in enumerate(outputs)))
    return jnp.concatenate(rows)


def value_and_gradients(op: Any, arrays: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """The value, and the gradient by each array for a cotangent that tells positions apart."""
    y, pull_back = jax.vjp(op, *arrays)
    slope = jnp.cos(1.7 * np.arange(y.size).reshape(y.shape)).astype(y.dtype)
    # The product has the sharding of y, where that is part of its type.
    return y, *pull_back(slope * jnp.ones_like(y))


def scales(op: Any, arrays: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """What the rounding errors of `value_and_gradients` are relative to, entry by entry."""
    y, pull_back = jax.vjp(op, *(jnp.abs(a) for a in arrays))
    return y, *pull_back(jnp.ones_like(y))


def assert_close(got: Any, want: Any, scale: Any, tolerance: float, label: str = "") -> None:
    """Every entry within tolerance * scale; a term that is nowhere has no error either."""
    got, want, scale = (np.asarray(a).astype(np.float64) for a in (got, want, scale))
    assert got.shape == want.shape, label
    excess = np.abs(got - want) - tolerance * scale
    worst = np.unravel_index(np.argmax(excess), excess.shape)
    assert excess[worst] <= 0, (
        f"{label}: at {worst} got {got[worst]}, want {want[worst]}, tolerance {tolerance} "
        f"times {scale[worst]}"
    )


@functools.cache
def mesh(*shape: int, names: tuple[str, ...] = ("data",), kind: AxisType = AxisType.Auto) -> Any:
    """A mesh of CPU devices."""
    return jax.make_mesh(shape or (8,), names, axis_types=(kind,) * len(names))


def bound(case: Case, method: str) -> Any:
    """`ops.cond_conv` as a function of its three arrays."""
    return functools.partial(ops.cond_conv, method=method, **case.keywords)
