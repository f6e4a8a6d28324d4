"""The package as data for the house rules: modules, their syntax trees and their imports.

A rule is a function `rule(tree) -> list[str]`; each string is one complaint: where, what and
what to do.
"""

import ast
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = "flywright"
DYNAMIC_IMPORTS = {"import_module", "__import__"}


@dataclass(frozen=True)
class Module:
    """One source file: dotted name, path, text."""

    name: str
    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=str(self.path))

    @property
    def room(self) -> str:
        """First part below the package: `data` for flywright.data.pack."""
        return room_of(self.name)

    @property
    def package(self) -> str:
        """What a relative import in this module starts from."""
        is_package = self.path.name == "__init__.py"
        return self.name if is_package else self.name.rpartition(".")[0]

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def functions(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        return [node for node in ast.walk(self.tree) if isinstance(node, kinds)]


@dataclass(frozen=True)
class Import:
    """An import as written: the dotted name that it reaches for, and the line."""

    target: str
    line: int


class Tree:
    """All modules below one package folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = sorted(folder.rglob("*.py"))
        self.modules = [Module(_dotted(folder, p), p, p.read_text(encoding="utf-8")) for p in paths]
        self.names = {module.name for module in self.modules}
        self.rooms = {module.room for module in self.modules if module.room}

    def where(self, module: Module, line: int = 0) -> str:
        """`data/pack.py:12`, as complaints name a place."""
        place = str(module.path.relative_to(self.folder))
        return f"{place}:{line}" if line else place

    def imports(self, module: Module) -> list[Import]:
        """Every import of a module, lazy ones and constant import_module calls included."""
        return [found for node in ast.walk(module.tree) for found in _imports(node, module)]

    def inner_imports(self, module: Module) -> list[Import]:
        """Imports of our own modules, `from a import b` meaning a.b where that is a module."""
        result = []
        for found in self.imports(module):
            if found.target.split(".")[0] == PACKAGE:
                target = found.target
                while target not in self.names and "." in target:
                    target = target.rpartition(".")[0]
                result.append(Import(target, found.line))
        return result


def room_of(name: str) -> str:
    """The room that a dotted name lives in; "" for the package itself."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def _dotted(folder: Path, path: Path) -> str:
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join([PACKAGE, *(part for part in parts if part != "__init__")])


def _imports(node: ast.AST, module: Module) -> list[Import]:
    if isinstance(node, ast.Import):
        return [Import(alias.name, node.lineno) for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = _import_base(node, module)
        return [Import(f"{base}.{alias.name}", node.lineno) for alias in node.names]
    if isinstance(node, ast.Call) and _called_name(node) in DYNAMIC_IMPORTS and node.args:
        name = node.args[0]
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            return [Import(name.value.partition(":")[0], node.lineno)]
    return []


def _import_base(node: ast.ImportFrom, module: Module) -> str:
    if not node.level:
        return node.module or ""
    parts = module.package.split(".")
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _called_name(node: ast.Call) -> str:
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
