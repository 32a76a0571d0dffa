"""Which weights of a run are taken: the last or the best, and the averages where there are any."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condconv_jax import runtime, training
from condconv_jax.cli import trained as cli_trained
from condconv_jax.cli.predicting import from_workdir, inputs
from condconv_jax.cli.trained import load_predictor, load_trained, load_weights


@pytest.fixture
def gone_on(trained, tmp_path):
    """A run whose last checkpoint has moving averages, and is not its best."""
    workdir = tmp_path / "gone_on"
    shutil.copytree(trained, workdir)
    tree = runtime.load_tree(trained)
    weights = {name: tree[name] for name in ("params", "model_state")}
    averages = jax.tree.map(lambda leaf: 2 * leaf, weights)
    state = training.TrainState(jnp.int32(5), *weights.values(), (), averages)
    with runtime.Checkpoints(workdir / "checkpoints") as checkpoints:
        checkpoints.save(5, state, metrics={"top1": -1.0})
    return workdir


def test_the_last_weights_are_averages_and_the_best_are_others(trained, gone_on):
    kernel = runtime.load_tree(trained)["params"]["layer_1"]["kernel"]
    for best, load, step, wanted in (
        (False, load_predictor, 5, 2 * kernel),
        (True, load_trained, 4, kernel),
    ):
        state = load(gone_on, [], best=best).state
        assert int(state.step) == step
        np.testing.assert_array_equal(state.to_evaluate()[0]["layer_1"]["kernel"], wanted)
        weights = load_weights(gone_on, best=best)
        assert weights.step == step
        np.testing.assert_array_equal(weights.variables["params"]["layer_1"]["kernel"], wanted)


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate"],
        ["analyze"],
        ["compress"],
        ["export", "--format=stablehlo"],
        ["predict", "picture.png"],
        ["convert", "--to-timm=x.safetensors", "--network=mobilenetv1_100"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_verb_takes_the_checkpoint_that_it_is_told_to(monkeypatch, refused, arguments):
    def load(*_, best):
        raise ValueError("the best" if best else "the last")

    for module in (cli_trained, from_workdir):
        for name in ("load_trained", "load_predictor", "load_weights"):
            monkeypatch.setattr(module, name, load, raising=False)
    # Only its name is looked at before the weights.
    monkeypatch.setattr(inputs, "find_inputs", lambda *_: [])
    for more, which in (([], "the last"), (["--best"], "the best")):
        assert refused(*arguments, "--workdir=any", *more).endswith(which)
