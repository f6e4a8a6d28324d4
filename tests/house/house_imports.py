"""House rules about imports: they only go down, rooms on a floor are strangers, no circles."""

import sys

from house_tree import Import, Module, Tree, room_of

FLOORS = [
    "records spec settings stats errors files progress",
    "ask tokenizer model parallel plan sandbox annotate report",
    "data generate judge world",  # world: its first model is a Completer, so it stands on ask
    "train serve synth evals",
    "recipe",
    "cli",
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}
GROUND_LIBRARIES = {"pydantic", "numpy"}


def every_room_has_a_floor(tree: Tree) -> list[str]:
    unknown = sorted(room for room in tree.rooms if room not in FLOOR_OF)
    return [f"{room}: no floor of the house has this room (HOUSE section 3)" for room in unknown]


def imports_only_go_down(tree: Tree) -> list[str]:
    """Ground modules may use each other; above, a room sees itself and the floors below."""
    return [
        f"{tree.where(module, found.line)}: {module.room} imports {found.target}: {reason}"
        for module in tree.modules
        if module.room
        for found in tree.inner_imports(module)
        if (reason := _import_fault(module, found))
    ]


def _import_fault(module: Module, found: Import) -> str:
    here, there = module.room, room_of(found.target)
    if here == there:
        return ""
    if not there:
        return "the package's door is for users; import the module itself"
    floor, other = FLOOR_OF.get(here, -1), FLOOR_OF.get(there, -1)
    if other > floor:
        return f"floor {floor} imports up from floor {other}"
    if other == floor and floor > 0:
        return f"rooms on one floor ({floor}) never import each other"
    return ""


def ground_imports_little(tree: Tree) -> list[str]:
    """The ground floor: standard library, pydantic, numpy and itself."""
    allowed = GROUND_LIBRARIES | set(sys.stdlib_module_names) | {"flywright"}
    return [
        f"{tree.where(module, found.line)}: the ground floor may not import {found.target}"
        for module in tree.modules
        if FLOOR_OF.get(module.room) == 0
        for found in tree.imports(module)
        if found.target.split(".")[0] not in allowed
    ]


def no_import_circle(tree: Tree) -> list[str]:
    """One complaint that spells a circle, where there is one."""
    graph = {m.name: sorted({i.target for i in tree.inner_imports(m)}) for m in tree.modules}
    done: set[str] = set()
    for name in sorted(graph):
        circle = _circle_from(name, graph, [], done)
        if circle:
            return [f"import circle: {' -> '.join(circle)}"]
    return []


def _circle_from(
    name: str, graph: dict[str, list[str]], path: list[str], done: set[str]
) -> list[str]:
    if name in path:
        return [*path[path.index(name) :], name]
    if name in done or name not in graph:
        return []
    for target in graph[name]:
        circle = _circle_from(target, graph, [*path, name], done)
        if circle:
            return circle
    done.add(name)
    return []


RULES = [every_room_has_a_floor, imports_only_go_down, ground_imports_little, no_import_circle]
