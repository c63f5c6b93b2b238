"""The house: which package may import which, and that every module has its mirror."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "gift_jax"

# From the ground up: a module imports from its own floor's package and from below.
FLOORS = (
    ("runtime",),
    ("registry", "labels"),
    ("losses", "streams", "optimizers", "diagnostics"),
    ("data",),
    ("augment", "models"),
    ("torch_io",),
    ("distilled",),
    ("teachers",),
    ("soft_labels",),
    ("train",),
    ("evaluators",),
    ("distill",),
    ("specs",),
    ("pipeline",),
    ("plan", "report", "pack"),
    ("main", "inspect"),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# Packages of a few lines whose modules are tested where they are used.
WITHOUT_MIRROR = {"__init__", "__main__"}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def dotted(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports(path):
    """The project's modules that a module imports, wherever in it."""
    known = {dotted(p).removesuffix(".__init__") for p in modules()}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                found = whole if whole in known else node.module
                if found.split(".")[0] == "gift_jax":
                    yield found
        if isinstance(node, ast.Import):
            yield from (n.name for n in node.names if n.name.startswith("gift_jax"))


def room(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def test_every_room_has_its_floor():
    rooms = {room(dotted(p)) for p in modules() if p != PACKAGE / "__init__.py"}
    assert rooms == set(FLOOR_OF)


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_go_down_only(path):
    own = room(dotted(path))
    for module in imports(path):
        other = room(module)
        # Protocols of configs/ are read by `specs`, and import only what lies below it.
        if own in (None, other) or other in (None, "__init__", "configs"):
            continue
        assert FLOOR_OF[other] < FLOOR_OF[own], f"{dotted(path)} imports {module}"


def test_no_circles():
    graph = {
        dotted(p).removesuffix(".__init__"): {
            m for m in imports(p) if m != dotted(p).removesuffix(".__init__")
        }
        for p in modules()
    }
    finished: set[str] = set()

    def visit(module, path):
        assert module not in path, " -> ".join([*path, module])
        if module in finished or module not in graph:
            return
        for other in graph[module]:
            # A package imports its modules, which may import their siblings.
            if not module.startswith(f"{other}."):
                visit(other, [*path, module])
        finished.add(module)

    for module in graph:
        visit(module, [])


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_every_module_has_its_mirror(path):
    if path.stem in WITHOUT_MIRROR:
        pytest.skip("tested through its package")
    folder = ROOT / "tests" / path.parent.relative_to(PACKAGE)
    assert (folder / f"test_{path.stem}.py").is_file()
