import argparse
import importlib
import re
from pathlib import Path

import pytest

from condconv_jax.cli import main
from condconv_jax.cli.main import CONFIGURED, VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_every_argument_is_explained(verb):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"condconv_jax.cli.{verb}").add_arguments(parser)
    assert [action.dest for action in parser._actions if not action.help] == []


@pytest.mark.parametrize("verb", VERBS)
def test_help_says_where_the_keys_of_a_config_are(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    text = capsys.readouterr().out
    assert ("--config.KEY=VALUE" in text) == (verb in CONFIGURED)
    for file in re.findall(r"are in (\S+\.py)", text):
        assert "config.model" in Path(file).read_text()
