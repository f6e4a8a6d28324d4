"""The house holds: each rule finds nothing in src/flywright, and finds what was planted."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import house_imports
import house_sizes
import house_words
import pytest
from house_tree import Tree

ROOT = Path(__file__).parents[2]
PACKAGE_FOLDER = ROOT / "src" / "flywright"
RULES = [*house_imports.RULES, *house_sizes.RULES, *house_words.RULES]
Rule = Callable[[Tree], list[str]]

DOC = '"""A module."""\n'
LONG_FUNCTION = DOC + "def f():\n" + "    x = 1\n" * 130
BACKWARD = DOC + "def step(loss):\n    loss.backward()\n"
MANY_FIELDS = "".join(f"    a{i}: int = 0\n" for i in range(13))
MANY_SETTINGS = f"{DOC}class A(Settings):\n{MANY_FIELDS}class B(A):\n" + MANY_FIELDS.replace(
    "    a", "    b"
)
GOOD_TREE = {
    "__init__.py": DOC,
    "records.py": DOC + "import json\nimport numpy\nfrom flywright.errors import UserError\n",
    "errors.py": DOC,
    "ask/__init__.py": DOC + "from flywright.ask.protocol import ask\n",
    "ask/protocol.py": DOC + "from flywright.records import thing\n",
    "train/loop.py": BACKWARD + "\nrank_count = world_size()\n",
    "train/sft.py": DOC + "def go():\n    from flywright.ask import ask\n",
    "world/towns.py": DOC + "laptop = 'teacher'\n",
}
BAD_TREES: list[tuple[Rule, dict[str, str], str]] = [
    (house_imports.every_room_has_a_floor, {"attic/x.py": DOC}, "attic"),
    (
        house_imports.imports_only_go_down,
        {"ask/lazy.py": DOC + "def f():\n    from flywright.train import loop\n"},
        "ask/lazy.py:3",
    ),
    (
        house_imports.imports_only_go_down,
        {"train/side.py": DOC + "import flywright.synth.flow\n", "synth/flow.py": DOC},
        "never import each other",
    ),
    (
        house_imports.imports_only_go_down,
        {"train/door.py": DOC + "from flywright import load\n"},
        "door",
    ),
    (
        house_imports.imports_only_go_down,
        {"ask/up.py": DOC + "from .. import train\n"},
        "ask/up.py:2",
    ),
    (
        house_imports.imports_only_go_down,
        {"ask/dyn.py": DOC + "x = importlib.import_module('flywright.train.loop')\n"},
        "ask/dyn.py:2",
    ),
    (house_imports.ground_imports_little, {"spec.py": DOC + "import torch\n"}, "torch"),
    (
        house_imports.no_import_circle,
        {
            "ask/a.py": DOC + "from flywright.ask import b\n",
            "ask/b.py": DOC + "import flywright.ask.a\n",
        },
        "flywright.ask.a -> flywright.ask.b -> flywright.ask.a",
    ),
    (house_sizes.files_are_short, {"ask/long.py": DOC + "x = 1\n" * 501}, "ask/long.py"),
    (
        house_sizes.files_are_short,
        {f"ask/n{i}.py": DOC + "x = 1\n" * 160 for i in range(20)},
        "median",
    ),
    (house_sizes.functions_are_short, {"ask/f.py": LONG_FUNCTION}, "ask/f.py:2 f"),
    (house_sizes.lines_are_short, {"ask/w.py": DOC + "x = '" + "y" * 100 + "'\n"}, "ask/w.py:2"),
    (
        house_sizes.rooms_keep_their_budget,
        {f"plan/n{i}.py": DOC + "x = 1\n" * 450 for i in range(6)},
        "parallel plan",
    ),
    (house_sizes.settings_are_few, {"ask/s.py": MANY_SETTINGS}, "B: 26 settings"),
    (house_words.every_module_says_what_it_is, {"ask/mute.py": "x = 1\n"}, "ask/mute.py"),
    (house_words.names_say_something, {"ask/text_utils.py": DOC}, "ask/text_utils.py"),
    (house_words.names_say_something, {"ask/core/x.py": DOC}, "ask/core"),
    (
        house_words.nothing_is_named_for_the_small_scale,
        {"ask/n.py": DOC + "teacher_model = 1\n"},
        "ask/n.py:2",
    ),
    (
        house_words.nothing_is_named_for_the_small_scale,
        {"ask/n.py": DOC + "class LaptopSettings: pass\n"},
        "ask/n.py:2",
    ),
    (
        house_words.nothing_is_named_for_the_small_scale,
        {"ask/n.py": DOC + "x = 1  # all the world\n"},
        "ask/n.py:2",
    ),
    (house_words.one_file_goes_backward, {"generate/b.py": BACKWARD}, "generate/b.py"),
]


def _grow(folder: Path, files: dict[str, str]) -> Tree:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Tree(folder)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps(rule: Rule) -> None:
    complaints = rule(Tree(PACKAGE_FOLDER))
    assert not complaints, "\n" + "\n".join(complaints)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_tree_passes(rule: Rule, tmp_path: Path) -> None:
    assert rule(_grow(tmp_path, GOOD_TREE)) == []


@pytest.mark.parametrize(
    ("rule", "planted", "expected"), BAD_TREES, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_planted_fault_is_found(
    rule: Rule, planted: dict[str, str], expected: str, tmp_path: Path
) -> None:
    complaints = rule(_grow(tmp_path, GOOD_TREE | planted))
    assert any(expected in complaint for complaint in complaints), complaints


def test_every_rule_has_a_planted_fault() -> None:
    assert {rule for rule, _, _ in BAD_TREES} == set(RULES)


def test_no_unused_or_undefined_names() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--select", "F", "--no-cache", "src", "tests"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def _modules_after(code: str) -> list[str]:
    listing = "import sys; print(' '.join(sorted(sys.modules)))"
    command = [sys.executable, "-c", f"{code}\n{listing}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_import_is_light() -> None:
    assert "torch" not in _modules_after("import flywright")


def test_help_is_light() -> None:
    if not (PACKAGE_FOLDER / "cli.py").exists():
        pytest.skip("no command line yet")
    code = (
        "import sys; sys.argv = ['flywright', '--help']\n"
        "from flywright.cli import main\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code, stop.code"
    )
    assert "torch" not in _modules_after(code)


# Written in halves, so that this file does not hold the names it looks for.
REGISTRY_HOSTS = [
    name + end
    for name, end in (
        ("pypi", ".org"),
        ("pythonhosted", ".org"),
        ("download.pytorch", ".org"),
        ("registry.npmjs", ".org"),
        ("anaconda", ".org"),
        ("proxy.golang", ".org"),
        ("static.crates", ".io"),
    )
]


def _registry_hosts_in(text: str) -> list[str]:
    return [host for host in REGISTRY_HOSTS if host in text.lower()]


def _tracked_files() -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / line for line in result.stdout.splitlines()]
    return [path for path in paths if path.is_file()]


def test_no_package_registry_is_named() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {host}"
        for path in _tracked_files()
        for host in _registry_hosts_in(path.read_text(encoding="utf-8", errors="ignore"))
    ]
    assert not found, "\n".join(found)
    assert _registry_hosts_in("https://" + REGISTRY_HOSTS[0]) == [REGISTRY_HOSTS[0]]
