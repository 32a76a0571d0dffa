"""`condconv VERB ...`: finds the verb, runs it, and turns a user's mistake into one line."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from condconv_jax.cli.huge_pages import restart_with_huge_pages
from condconv_jax.names import unknown_name

# Each is a module of this package with HELP, EXAMPLE, add_arguments(parser) and
# run(arguments, overrides).
VERBS = (
    "train",
    "evaluate",
    "predict",
    "compress",
    "export",
    "analyze",
    "madds",
    "benchmark",
    "convert",
)

# Their arguments are keys of a config, too.
CONFIGURED = ("train", "evaluate", "predict", "compress", "export", "analyze", "convert")
KEYS = """config:
  --config.KEY=VALUE  sets any key of the config, such as --config.model.num_experts=16; all keys
                      and what they mean are in {defaults}

"""

USAGE = """usage: condconv VERB [--config=FILE.py[:ARG]] [--config.KEY=VALUE ...] [--workdir=DIR]

verbs:
  train      train a network, or go on with a run that was interrupted
  evaluate   accuracy, or average precision, of a trained network
  predict    what a trained network sees in pictures and videos
  compress   a trained CondConv network made small and quick for inference
  export     a trained network as a file for another runtime
  analyze    report on trained networks: cost, curves, routing
  madds      multiply-adds of a network, layer by layer
  benchmark  time of single layers on this machine, and what bounds it
  convert    weights from TensorFlow, timm or a static network, and back to timm

condconv VERB --help describes one."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status.

    0 is success, 1 a mistake in the input (one line on stderr; `--debug` shows the traceback), 2
    a command line that cannot be read, 130 an interruption.

    Args:
      arguments: without the program's name; None for the process' own.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in VERBS:
        print(f"condconv: {unknown_name('condconv', 'verb', name, VERBS)}", file=sys.stderr)
        return 2
    verb = importlib.import_module(f"condconv_jax.cli.{name}")
    parser = argparse.ArgumentParser(
        prog=f"condconv {name}",
        description=verb.HELP,
        epilog=f"{_keys(name)}example:\n  {verb.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verb.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parsed, overrides = parser.parse_known_args(rest)
    try:
        verb.run(parsed, overrides)
    except KeyboardInterrupt:
        print(f"condconv {name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ArithmeticError, ImportError) as error:
        if parsed.debug:
            raise
        print(f"condconv {name}: {_one_line(str(error))}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        # XLA's own type is not to be imported for verbs that need no XLA.
        if parsed.debug or not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        print(
            f"condconv {name}: the device has too little memory: {str(error).splitlines()[0]}; use "
            "a smaller batch, or to train with the same one config.micro_batches",
            file=sys.stderr,
        )
        return 1
    return 0


def _keys(verb: str) -> str:
    """What a verb's help says of the config; no more than the file's path, which takes no time."""
    defaults = Path(__file__).parents[1] / "config" / "defaults.py"
    return KEYS.format(defaults=defaults) if verb in CONFIGURED else ""


def _one_line(message: str) -> str:
    """A message as one line; of a heading, indented items and advice, the items come last."""
    lines = message.strip().splitlines()
    items = [line.strip() for line in lines if line.startswith("  ")]
    rest = [line.strip() for line in lines if not line.startswith("  ")]
    if not items:
        return " ".join(rest)
    heading, *advice = rest
    found = "; ".join([f"{len(items)} in all", *advice])
    return f"{heading.rstrip(':')} ({found}): {'; '.join(items)}"


def run() -> None:
    """The command as a process of its own."""
    restart_with_huge_pages()
    sys.exit(main())
