import functools

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax import nn

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (2, 3, 5, 4))


@pytest.mark.parametrize("activation", ["relu", "swish"])
def test_by_hand(activation):
    module = nn.SqueezeExcite(3, activation=getattr(linen, activation))
    variables = jax.tree.map(lambda a: a + 0.3, module.init(KEY, X))
    reduce, expand = (
        {k: np.asarray(v) for k, v in variables["params"][name].items()}
        for name in ("reduce", "expand")
    )
    assert (reduce["kernel"].shape, expand["kernel"].shape) == ((4, 3), (3, 4))
    x = np.asarray(X)
    sigmoid = lambda a: 1 / (1 + np.exp(-a))
    hidden = x.mean(axis=(1, 2)) @ reduce["kernel"] + reduce["bias"]
    hidden = np.maximum(hidden, 0) if activation == "relu" else hidden * sigmoid(hidden)
    gate = sigmoid(hidden @ expand["kernel"] + expand["bias"])
    np.testing.assert_allclose(
        module.apply(variables, X), x * gate[:, None, None, :], rtol=1e-4, atol=1e-6
    )


def test_gate_is_an_option():
    module = nn.SqueezeExcite(3, gate=lambda a: jnp.zeros_like(a) + 2)
    np.testing.assert_allclose(module.apply(module.init(KEY, X), X), 2 * X)


@pytest.mark.parametrize(("inputs", "dtype"), [("bfloat16", None), ("bfloat16", jnp.bfloat16),
                                               ("float32", jnp.bfloat16)])  # fmt: skip
def test_keeps_the_dtype_of_the_inputs(inputs, dtype):
    module = nn.SqueezeExcite(3, dtype=dtype)
    x = X.astype(inputs)
    variables = module.init(KEY, x)
    assert module.apply(variables, x).dtype == inputs
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("inputs", "dtype"),
    [("bfloat16", "bfloat16"), ("float32", "bfloat16"), ("bfloat16", None)],
)
def test_both_layers_compute_in_the_dtype_asked_for_or_that_of_the_inputs(inputs, dtype):
    module = nn.SqueezeExcite(3, dtype=dtype)
    run = functools.partial(module.init_with_output, capture_intermediates=True, mutable=True)
    _, variables = jax.eval_shape(run, KEY, X.astype(inputs))
    for layer in ("reduce", "expand"):
        assert variables["intermediates"][layer]["__call__"][0].dtype == jnp.bfloat16


def test_refuses_no_bottleneck():
    with pytest.raises(ValueError, match="SqueezeExcite: features is 0; pass at least 1"):
        nn.SqueezeExcite(0).init(KEY, X)
