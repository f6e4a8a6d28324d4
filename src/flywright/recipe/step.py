"""Steps: a name, a version, settings, inputs, and a folder that is done or not.

A step's fingerprint is a hash of its settings, its inputs' fingerprints, its version and the seed.
A manifest with that fingerprint means done; a folder without one is gone on with if it was begun
for the same fingerprint, else begun anew. So a change redoes a step and all that stands on it.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flywright.files import digest, fsync_tree, named_disk_errors, seed_from, write_json
from flywright.parallel import Ranks
from flywright.progress import Announce, Tick, silent

BEGUN, MANIFEST = "begun.json", "manifest.json"


@dataclass(frozen=True)
class Artifact:
    """A finished step: where it lies and what it is."""

    name: str
    folder: Path
    fingerprint: str

    def __truediv__(self, name: str) -> Path:
        """A file of this step."""
        return self.folder / name

    @property
    def weights(self) -> Path:
        """The weights folder of a training step."""
        return self.folder / "weights"

    def manifest(self) -> dict[str, Any]:
        """What the step said of itself."""
        return json.loads((self.folder / MANIFEST).read_text())


@dataclass
class Work:
    """What a stage gets: a folder to fill, a seed, a tick; and where it says what it did."""

    name: str
    folder: Path
    seed: int
    tick: Tick = silent
    ranks: Ranks = field(default_factory=Ranks)
    tokens: int = 0
    items: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    measuring: Any = None  # recipe.measuring's settings, where what trains is evaluated meanwhile

    def __truediv__(self, name: str) -> Path:
        """A file of this step."""
        return self.folder / name


Stage = Callable[..., None]
_STAGES: dict[Stage, tuple[int, bool]] = {}  # version, and whether it trains


def stage(version: int, trains: bool = False) -> Callable[[Stage], Stage]:
    """Mark a function as a stage; raise its version by hand when what it makes changes.

    All ranks of a mesh do one that `trains` together; the first rank does the others.
    """

    def mark(function: Stage) -> Stage:
        _STAGES[function] = version, trains
        return function

    return mark


class Stop(Exception):  # noqa: N818 - not an error: --until was reached
    """The step named by --until is done."""


class Road:
    """Does stages in order, in `root`/steps; or only names them (`plan_only`)."""

    def __init__(
        self,
        root: Path,
        seed: int,
        *,
        until: str = "",
        plan_only: bool = False,
        announce: Announce | None = None,
        ranks: Ranks | None = None,
    ):
        self.root = root
        self._ranks = ranks or Ranks()
        self.seed = seed
        self.names: list[str] = []
        self._until = until
        self._plan_only = plan_only
        self._announce = announce or Announce()

    def do(self, function: Stage, name: str, settings: BaseModel, *inputs: Any) -> Artifact:
        """The artifact of `function(work, settings, *inputs)`; made now unless it is done.

        Inputs are Artifacts, settings, whoever answers, or plain values; all of them go into the
        fingerprint.
        """
        if name in self.names:
            raise ValueError(f"two steps are named {name!r}")
        self.names.append(name)
        (version, trains), chosen = _STAGES[function], settings.model_dump(mode="json")
        identities = [_identity(value) for value in inputs]
        fingerprint = digest(name, version, chosen, identities, self.seed)
        artifact = Artifact(name, self.root / "steps" / f"{name}@{version}", fingerprint)
        if not self._plan_only:
            said = {
                "name": name,
                "number": len(self.names),
                "version": version,
                "fingerprint": fingerprint,
                "inputs": {each.name: each.fingerprint for each in _artifacts(inputs)},
                "settings": chosen,
                "seed": self.seed,
            }
            self._make(artifact, said, lambda work: function(work, settings, *inputs), trains)
        if name == self._until:
            raise Stop(name)
        return artifact

    def _make(
        self, artifact: Artifact, said: dict[str, Any], act: Callable[[Work], None], trains: bool
    ) -> None:
        """Begin, act (all ranks where it trains, else the first), and finish with a manifest."""
        ranks, name, folder = self._ranks, artifact.name, artifact.folder
        if ranks.agreed(_recorded(folder / MANIFEST) == artifact.fingerprint):
            self._announce.skipped(name)
            return
        ranks.by_first(lambda: _begin(artifact))
        tick, together = self._announce.begin(name), ranks if trains else Ranks()
        work = Work(name, folder, seed_from(self.seed, name), tick, together)
        started = time.time()
        act(work) if trains else ranks.by_first(lambda: act(work))
        seconds = time.time() - started
        ranks.by_first(lambda: _finish(work, said, started))
        self._announce.finished(name, seconds)

    def link(self, name: str, artifact: Artifact) -> None:
        """Point `root`/`name` to the artifact's weights folder (a relative symbolic link)."""
        if self._plan_only or not self._ranks.first:
            return
        target = artifact.weights.relative_to(self.root)
        temporary = self.root / f".{name}.tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(self.root / name)


def _finish(work: Work, said: dict[str, Any], started: float) -> None:
    """The manifest, with which the step is done."""
    did = {
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 2),
        "tokens": work.tokens,
        "items": work.items,
        "facts": work.facts,
    }
    fsync_tree(work.folder)
    write_json(work / MANIFEST, said | did)
    (work / BEGUN).unlink()


def _identity(value: Any) -> Any:
    """What an input is for the fingerprint: its own fingerprint, settings, or a model's name."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _identity(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_identity(part) for part in value]
    for name in ("fingerprint", "model"):
        if hasattr(value, name):
            return getattr(value, name)
    return value


def _artifacts(inputs: Iterable[Any]) -> Iterator[Artifact]:
    """The artifacts among inputs, those in lists and dicts too."""
    for value in inputs:
        if isinstance(value, Artifact):
            yield value
        elif isinstance(value, list | dict):
            yield from _artifacts(value.values() if isinstance(value, dict) else value)


def _recorded(path: Path) -> str:
    """Fingerprint in a manifest or begun file; "" where there is none or it is torn."""
    try:
        return json.loads(path.read_text())["fingerprint"]
    except (OSError, ValueError, KeyError):
        return ""


def _begin(artifact: Artifact) -> None:
    """Make the folder ready: kept if it was begun for the same fingerprint, else empty."""
    folder = artifact.folder
    if _recorded(folder / BEGUN) == artifact.fingerprint:
        return
    with named_disk_errors(folder):
        if folder.exists():
            # the manifest goes first: a half-removed folder must never look done
            (folder / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    write_json(folder / BEGUN, {"fingerprint": artifact.fingerprint})
