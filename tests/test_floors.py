"""Imports go only to a lower floor (docs/architecture.md)."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "condconv_jax"

FLOORS = {
    "crc32c": 0,
    "names": 0,
    "ops": 1,
    "nn": 2,
    "data": 2,
    "models": 3,
    "runtime": 3,
    "training": 4,
    "tasks": 4,
    "analysis": 4,
    "performance": 4,
    "interop": 4,
    "config": 5,
    "cli": 6,
}


def imports(source: str, module: str) -> list[str]:
    """The modules that a module imports, anywhere in it, by their full names."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*module.split(".")[: -node.level], *base.split(".")]).rstrip(".")
            # `from condconv_jax import ops` imports the module condconv_jax.ops.
            found += [f"{base}.{alias.name}" for alias in node.names]
    return found


def package_of(module: str) -> str | None:
    """The part of condconv_jax that a module belongs to; None for any other module."""
    parts = module.split(".")
    return parts[1] if parts[0] == "condconv_jax" and len(parts) > 1 else None


def upward(source: str, module: str) -> list[str]:
    """The imports that leave a module's package for one that is not on a lower floor."""
    own = package_of(module)
    targets = [(name, package_of(name)) for name in imports(source, module)]
    return [
        f"{module} (floor {FLOORS.get(own, '?')}) imports {name} (floor {FLOORS.get(to, '?')})"
        for name, to in targets
        if to is not None and to != own and FLOORS.get(to, 99) >= FLOORS.get(own, -1)
    ]


def modules() -> dict[str, Path]:
    """Every module of the package, by its full name as an importer would write it."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts)] = path
    return found


def test_every_package_has_a_floor():
    parts = {package_of(name) for name in modules()} - {"__init__", "__main__"}
    assert parts <= set(FLOORS), f"give these a floor in FLOORS: {sorted(parts - set(FLOORS))}"


@pytest.mark.parametrize("package", sorted(FLOORS))
def test_imports_go_to_lower_floors_only(package):
    offending = [
        line
        for name, path in modules().items()
        if package_of(name) == package
        for line in upward(path.read_text(), name)
    ]
    assert not offending, "\n".join(offending)


def test_ops_import_jax_and_nothing_else():
    # NumPy is JAX's own, and what attributes of a foreign call have to be.
    allowed = {"jax", "jaxtyping", "numpy", *sys.stdlib_module_names}
    offending = [
        f"{module} imports {name}"
        for module, path in modules().items()
        if package_of(module) == "ops"
        for name in imports(path.read_text(), module)
        if name.split(".")[0] not in allowed and package_of(name) not in ("ops", "names")
    ]
    assert not offending, "\n".join(offending)


@pytest.mark.parametrize(
    ("module", "source", "offends"),
    [
        ("condconv_jax.ops.conv", "from condconv_jax.nn import CondConv", True),
        ("condconv_jax.nn.router", "from condconv_jax import data", True),
        ("condconv_jax.models.ssd", "import condconv_jax.runtime.mesh", True),
        ("condconv_jax.training.loop", "def f():\n    from condconv_jax import tasks", True),
        ("condconv_jax.ops.conv", "from ..nn import router", True),
        ("condconv_jax.names", "from condconv_jax import ops", True),
        ("condconv_jax.models.ssd", "from condconv_jax import nn, ops", False),
        ("condconv_jax.models.ssd", "from condconv_jax.models.routing import RoutingPlan", False),
        ("condconv_jax.ops.methods.spatial", "from ..geometry import Geometry", False),
        ("condconv_jax.ops.conv", "import jax.numpy as jnp", False),
    ],
)
def test_the_check_itself(module, source, offends):
    assert bool(upward(source, module)) is offends
