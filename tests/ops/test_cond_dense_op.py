import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conv_cases import TOLERANCE, assert_close, scales, value_and_gradients

from condconv_jax import ops

METHODS = ["reference", "mixture", "pointwise", "spatial", "auto"]


def _arrays(middle, batch=3, e=2, c=3, f=4, dtype="float32"):
    rng = np.random.default_rng(0)
    shapes = (batch, *middle, c), (e, c, f), (batch, e)
    return tuple(jnp.asarray(rng.standard_normal(s), dtype) for s in shapes)


@pytest.mark.parametrize("middle", [(), (5,), (2, 3), (2, 1, 3)])
def test_methods_agree_over_any_middle_axes(middle):
    arrays = _arrays(middle)

    def plain(x, experts, routing):
        return jnp.einsum("be,b...c,ecf->b...f", routing, x, experts, precision="highest")

    @jax.jit
    def run(*arrays):
        got = {
            m: value_and_gradients(functools.partial(ops.cond_dense, method=m), arrays)
            for m in METHODS
        }
        return got, value_and_gradients(plain, arrays), scales(plain, arrays)

    got, want, size = run(*arrays)
    for method, results in got.items():
        for g, w, s in zip(results, want, size, strict=True):
            assert_close(g, w, s, TOLERANCE["float32"], method)


def test_golden():
    # r = (2, 3): 2 (1 2; 3 4) + 3 (0 1; 1 0) = (2 7; 9 8); (1, 2) times it = (20, 23).
    experts = jnp.array([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [1.0, 0.0]]])
    y = ops.cond_dense(jnp.array([[1.0, 2.0]]), experts, jnp.array([[2.0, 3.0]]))
    np.testing.assert_allclose(y, [[20, 23]], rtol=1e-6)


def test_keeps_the_dtype_of_the_inputs():
    x, experts, routing = _arrays((2,))
    y = ops.cond_dense(x.astype(jnp.bfloat16), experts, routing)
    want, size = (
        ops.cond_dense(*arrays)
        for arrays in ((x, experts, routing), tuple(map(jnp.abs, (x, experts, routing))))
    )
    assert y.dtype == jnp.bfloat16
    # One rounding more than the table counts: the inputs' own.
    assert_close(y, want, size, 1.5 * TOLERANCE["bfloat16"])


def test_the_classifier_runs_as_a_mixture_from_batch_8_on():
    def products(batch):
        arrays = _arrays((), batch=batch)
        return str(jax.make_jaxpr(ops.cond_dense)(*arrays)).count("dot_general")

    # Mixing and multiplying are two products, the mixture is one.
    assert (products(7), products(8)) == (2, 1)


@pytest.mark.parametrize(
    ("x", "experts", "routing", "method", "message"),
    [
        ((2, 3), (4, 5, 6), (2, 4), "auto", r"cond_dense: x is \(2, 3\), experts are \(4, 5, 6\)"),
        ((2, 3), (3, 6), (2, 3), "auto", r"experts are \(3, 6\); pass \(b, ..., c\), \(e, c, f\)"),
        ((3,), (2, 3, 6), (3, 2), "auto", r"cond_dense: x is \(3,\)"),
        ((2, 3), (4, 3, 6), (3, 4), "auto", "cond_dense: routing has 3 rows, x has 2"),
        ((2, 3), (4, 3, 6), (2, 5), "auto", "cond_dense: routing has 5 weights.*experts are 4"),
        ((2, 3), (4, 3, 6), (2, 4), "depthwise", "a matrix has no depthwise form; use method='poi"),
        ((2, 3), (4, 3, 6), (2, 4), "mixtur", "cond_dense: unknown method.*did you mean 'mixture'"),
    ],
)
def test_refusals(unchecked, x, experts, routing, method, message):
    with pytest.raises(ValueError, match=message):
        ops.cond_dense(jnp.ones(x), jnp.ones(experts), jnp.ones(routing), method=method)
