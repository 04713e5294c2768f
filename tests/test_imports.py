"""Imports point one way (see the house rules): an arrow back is a fault."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for package in ("schemas", "streams")
    for file in sorted((ROOT / package).rglob("*.py"))
}

#: From the inside out; each may import what stands before it. `streams.http` is served by the worker that wires it in.
LAYERS = (
    "schemas",
    "streams.domain",
    "streams.engine",
    "streams.agents",
    "streams.app",
    "streams.http",
    "streams.worker",
    "streams.cli",
    "streams.__main__",
)
#: Beside the layers: they know of none of them but those named here.
BESIDE: dict[str, set[str]] = {
    "streams": set(),
    "streams.config": set(),
    "streams.certificates": {"streams.config"},
    "streams.topics": set(),
    "streams.metrics": set(),
    "streams.loop": set(),
    "streams.logs": set(),
    "streams.links": {"streams.config"},
    "streams.kafka": {
        "streams.certificates", "streams.config", "streams.topics", "streams.metrics", "streams.logs", "streams.domain",
        "schemas",
    },
    "streams.broker": {"streams.broker"},
}
#: The inner layers may use only these of what stands beside them.
USED_BY_INNER = {
    "streams", "streams.config", "streams.kafka", "streams.topics", "streams.metrics", "streams.logs", "streams.links"
}


def part_of(module: str) -> str:
    """The layer or neighbour that a module belongs to."""
    found = [name for name in (*LAYERS, *BESIDE) if module == name or module.startswith(f"{name}.")]
    return max(found, key=len)


def imports_of(module: str) -> set[str]:
    """Every module that a module names in an import, anywhere in its file."""
    file = MODULES[module]
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            own = {f"{base}.{alias.name}" for alias in node.names} & set(MODULES)
            found |= own or {base}
            if own and {alias.name for alias in node.names} - {name.rpartition(".")[2] for name in own}:
                found.add(base)
    return found


def tops(module: str) -> set[str]:
    return {name.split(".")[0] for name in imports_of(module)}


def modules_in(*layers: str) -> list[str]:
    return [module for module in MODULES if part_of(module) in layers]


def test_every_module_belongs_to_a_layer_or_beside_them() -> None:
    assert len(MODULES) > 40
    assert {part_of(module) for module in MODULES} == {*LAYERS, *BESIDE}


@pytest.mark.parametrize("module", MODULES)
def test_no_import_points_back(module: str) -> None:
    own = part_of(module)
    for name in imports_of(module) & set(MODULES):
        other = part_of(name)
        if own in BESIDE:
            assert other == own or other in BESIDE[own], f"{module} imports {name}"
        elif other in LAYERS:
            assert LAYERS.index(other) <= LAYERS.index(own), f"{module} imports {name}: an arrow back"
        elif LAYERS.index(own) < LAYERS.index("streams.app"):
            assert other in USED_BY_INNER, f"{module} imports {name}"


def _allowed(module: str, third_party: set[str], standard: set[str]) -> set[str]:
    return tops(module) - {"__future__"} - third_party - standard


@pytest.mark.parametrize("module", [module for module in modules_in("schemas") if module != "schemas.export"])
def test_schemas_import_pydantic_and_plain_python_only(module: str) -> None:
    plain = {"typing", "collections", "datetime", "re"}
    assert _allowed(module, {"schemas", "pydantic", "pydantic_core", "typing_extensions"}, plain) == set()


def test_the_exporter_of_schemas_adds_only_what_files_need() -> None:
    plain = {"typing", "collections", "json", "sys", "pathlib"}
    assert _allowed("schemas.export", {"schemas", "pydantic"}, plain) == set()


@pytest.mark.parametrize("module", modules_in("streams.domain"))
def test_the_domain_imports_schemas_and_pure_libraries_and_nothing_that_knows_a_clock_or_the_world(module: str) -> None:
    plain = {"typing", "collections", "functools", "struct", "re", "itertools", "operator", "hashlib"}
    assert _allowed(module, {"schemas", "streams", "orjson", "phonenumbers"}, plain) == set()
    inner = {name for name in imports_of(module) if name.split(".")[0] == "streams"}
    assert {part_of(name) for name in inner} <= {"streams.domain"}
    names = {node.id for node in ast.walk(ast.parse(MODULES[module].read_text())) if isinstance(node, ast.Name)}
    assert names.isdisjoint({"open", "print", "input", "exec", "eval", "__import__", "hash", "id"})


@pytest.mark.parametrize("module", MODULES)
def test_faust_is_known_to_the_engine_and_the_wiring_only(module: str) -> None:
    if tops(module) & {"faust", "mode"}:
        assert part_of(module) in {"streams.engine", "streams.app", "streams.worker"}


@pytest.mark.parametrize("module", MODULES)
def test_kafkas_client_is_known_to_one_package_only(module: str) -> None:
    if "aiokafka" in tops(module):
        assert part_of(module) == "streams.kafka"


@pytest.mark.parametrize("module", MODULES)
def test_rocksdb_is_known_to_the_engine_only(module: str) -> None:
    if "rocksdict" in tops(module):
        assert part_of(module) == "streams.engine"


@pytest.mark.parametrize("module", MODULES)
def test_the_product_does_not_import_its_tests_or_what_only_tests_install(module: str) -> None:
    assert tops(module).isdisjoint({"tests", "pytest", "hypothesis", "jsonschema", "quixstreams"})


def test_importing_the_commands_does_not_import_faust() -> None:
    """The commands answer at once; only the worker pays for Faust."""
    import subprocess

    program = "import sys, streams.cli.root; print([m for m in ('faust', 'rocksdict') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
