"""Configs that were saved before a key was added."""

import json

import pytest

from condconv_jax import config as configs
from condconv_jax.cli.flags import config_from_dict
from condconv_jax.runtime import check_same_config


def saved(**changes):
    config = configs.classification("mobilenet_v1").to_dict()
    config["model"]["width"] = 0.5
    return json.loads(json.dumps(config | changes))


def test_missing_keys_have_their_defaults_and_others_stay():
    old = saved()
    del old["model"]["folded"], old["model"]["routing"]["centred"], old["optimizer"]
    full = configs.completed(old).to_dict()
    assert full == configs.completed(saved()).to_dict()
    assert full["model"]["width"] == 0.5
    assert not full["model"]["folded"]
    assert full["optimizer"]["momentum"] == 0.9


def test_a_run_goes_on_under_a_config_that_has_more_keys():
    old = saved()
    del old["model"]["folded"]
    now = config_from_dict(old, []).to_dict()
    check_same_config(configs.completed(old).to_dict(), now)
    folded = config_from_dict(old, ["--config.model.folded=true"]).to_dict()
    with pytest.raises(ValueError, match=r"model\.folded: saved false, now true"):
        check_same_config(configs.completed(old).to_dict(), folded)


def test_what_a_saved_config_cannot_be():
    with pytest.raises(ValueError, match="unknown task 'segmentation'"):
        configs.completed(saved(task="segmentation"))
    with pytest.raises(ValueError, match="unknown model"):
        configs.completed({"task": "classification", "model": {"name": "mobilenet_v9"}})
