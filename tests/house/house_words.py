"""House rules about words: docstrings, forbidden names, one `backward()`, no small-scale names."""

import ast
import re

from house_tree import Tree

FORBIDDEN_NAMES = {"utils", "util", "common", "core", "helpers", "helper", "legacy"}
SMALL_WORLD = re.compile(r"(?<![a-z])(world|laptop|teacher)s?(?![a-z])", re.IGNORECASE)
# torch's own word for "all ranks" is not ours to change.
TORCH_WORDS = re.compile(r"world_?size|group\.WORLD", re.IGNORECASE)


def every_module_says_what_it_is(tree: Tree) -> list[str]:
    return [
        f"{tree.where(module)}: no docstring; say what the module is and how it is run"
        for module in tree.modules
        if not ast.get_docstring(module.tree)
    ]


def names_say_something(tree: Tree) -> list[str]:
    """No file or folder is a drawer for odds and ends."""
    paths = {path for m in tree.modules for path in [m.path, *m.path.parents]}
    inside = sorted(path for path in paths if path.is_relative_to(tree.folder))
    return [
        f"{path.relative_to(tree.folder)}: a name that says nothing; name what is inside"
        for path in inside
        if path != tree.folder and FORBIDDEN_NAMES & set(path.stem.lower().split("_"))
    ]


def nothing_is_named_for_the_small_scale(tree: Tree) -> list[str]:
    """Outside world/ the code reads the same for a small machine and for 340B."""
    return [
        f"{tree.where(module, number)}: says {found.group(0)!r}: {line.strip()}"
        for module in tree.modules
        if module.room != "world"
        for number, line in enumerate(module.lines, 1)
        if (found := SMALL_WORLD.search(_camel_split(TORCH_WORDS.sub("", line))))
    ]


def _camel_split(text: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text)


def one_file_goes_backward(tree: Tree) -> list[str]:
    """`backward()` is called in exactly one file, once there is a train room."""
    places = [
        tree.where(module)
        for module in tree.modules
        if any(_is_backward(node) for node in ast.walk(module.tree))
    ]
    if len(places) > 1:
        return [f"backward() is called in {', '.join(places)}; one file trains"]
    if not places and "train" in tree.rooms:
        return ["train/ is there, but no file calls backward()"]
    return []


def _is_backward(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    return node.func.attr == "backward"


RULES = [
    every_module_says_what_it_is,
    names_say_something,
    nothing_is_named_for_the_small_scale,
    one_file_goes_backward,
]
