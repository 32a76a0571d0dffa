"""Configs from the command line, with every mistake named."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from condconv_jax.config.defaults import DEFAULTS
from condconv_jax.config.from_run import completed
from condconv_jax.names import unknown_name


def config_from_file(file: str, overrides: Sequence[str]) -> ConfigDict:
    """Returns the config of a file, changed by the command line.

    Args:
      file: "FILE.py" or "FILE.py:ARG", ARG being passed to its `get_config`.
      overrides: "--config.KEY=VALUE" arguments.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: for an argument that is no override, an unknown key, a value of another type, or
        a config that lacks a key.
    """
    path = file.split(":")[0]
    if not Path(path).is_file():
        raise FileNotFoundError(f"--config: no file {path!r}; pass FILE.py or FILE.py:ARG")
    try:
        _define_and_read(config_flags.DEFINE_config_file, None, [f"--config={file}"])
    except flags.Error as error:
        # The message is the whole traceback of the file; its last line is the reason.
        raise ValueError(f"--config={file}: {str(error).strip().splitlines()[-1]}") from error
    return _complete(
        path, _parse(config_flags.DEFINE_config_file, None, [f"--config={file}"], overrides)
    )


def config_from_dict(saved: dict[str, Any], overrides: Sequence[str]) -> ConfigDict:
    """Returns the config of a work directory, changed by the command line.

    Args:
      saved: content of its config.json; keys that it lacks have their defaults.
      overrides: "--config.KEY=VALUE" arguments.

    Raises:
      ValueError: as `config_from_file`.
    """
    return _parse(config_flags.DEFINE_config_dict, completed(saved), [], overrides)


def _complete(where: str, config: ConfigDict) -> ConfigDict:
    task = config.get("task", "classification")
    if task not in DEFAULTS:
        raise unknown_name(f"{where}: config.task", "task", task, DEFAULTS)
    # Without a network of its own, that of the task's defaults.
    named = [name] if (name := config.get("model", {}).get("name")) else []
    defaults = DEFAULTS[task](*named)
    wanted, found = set(_keys(defaults)), set(_keys(config))
    if missing := sorted(wanted - found):
        raise ValueError(
            f"{where}: no {', '.join(missing)}; start from condconv_jax.config.{task}"
            f"({defaults.model.name!r}), which has every key"
        )
    return config


def _parse(
    define: Any, default: ConfigDict | None, base: list[str], overrides: Sequence[str]
) -> ConfigDict:
    keys = sorted(_keys(_define_and_read(define, default, base)))
    for argument in overrides:
        name = argument.split("=")[0]
        if not name.startswith("--config."):
            raise ValueError(
                f"unknown argument {argument!r}; keys of the config are set by --config.KEY=VALUE, "
                "--help lists the others"
            )
        if name.removeprefix("--config.") not in keys:
            raise unknown_name("--config", "key", name.removeprefix("--config."), keys)
        if name == "--config.model.name":
            # The options beside it would stay those of the other network.
            raise ValueError(
                f"{argument}: a config is of one network; take a config of the other one, such as "
                "configs/cifar100/networks.py:NAME"
            )
        if "=" not in argument:
            raise ValueError(f"{argument}: no value; pass {argument}=VALUE")
    try:
        return _define_and_read(define, default, [*base, *overrides])
    except (flags.Error, TypeError) as error:
        raise ValueError(f"{str(error).removeprefix('flag ')}; pass a value of its type") from error


def _define_and_read(define: Any, default: ConfigDict | None, arguments: list[str]) -> ConfigDict:
    values, command = flags.FlagValues(), ["condconv", *arguments]
    # A copy: overrides change the config in place.
    positional = [] if default is None else [ConfigDict(default.to_dict())]
    define("config", *positional, lock_config=True, flag_values=values, sys_argv=command)
    values(command)
    return values.config


def _keys(config: ConfigDict, prefix: str = "") -> list[str]:
    found = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        found.append(name)
        if isinstance(value, ConfigDict):
            found += _keys(value, f"{name}.")
    return found
