"""How a flow is run: shards and leases, replies remembered, budgets kept, progress told.

run_one("dialogues", Path("dialogues.toml"), [])     # what `flywright synth` calls

OUT.jsonl is written whole at the end. Beside it, OUT.work/ holds the ledger/, the shards/ (one file
for some input records, with its counts; renamed into place), manifest.json, and the workers' files;
OUT.failed.jsonl lists the records that the same command tries again. Any number of processes may
run the same command on the same folder: each shard is made by one of them.
"""

import asyncio
import itertools
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from flywright.ask import Budget, Crew, Ledger, Ledgered, Limited, Mixed, ordered
from flywright.ask.budget import Price
from flywright.ask.limits import Patience
from flywright.ask.protocol import Stopped
from flywright.errors import FlywrightError, UserError
from flywright.files import atomic_file, digest, file_hash, folder_hash, read_json, write_json
from flywright.progress import silent
from flywright.recipe.console import Teller
from flywright.recipe.flow_workers import PARENT, Helpers, number_here, on_ray
from flywright.recipe.flows import FLOWS, AnswererSettings, Each, FlowFile, Job, Whole
from flywright.recipe.prompt_flows import READ
from flywright.records import read_jsonl, write_jsonl
from flywright.report.card import write_card
from flywright.settings import load_settings
from flywright.synth import Maker
from flywright.synth.maker import Failure

AT_ONCE = 3  # shards, so that none waits for the slowest record of another
TELL_SECONDS = 0.5
PILOT_SHARE, PILOT_RECORDS = 0.01, 30  # of the records, before a forecast is told
OVER_FILES = ("filter", "card")  # flows over records that are there
MAKING = ("synth", "judge", "records.py", "recipe/flows.py")  # code and words that make records
BESIDE = {"out", "data", "generator", "reward", "policy", "patience", "budget", "sandbox"}
BESIDE |= {"reward_at_endpoint", "reward_api_key_variable"}
Info = dict[str, Any]  # of a shard: file, read, records, counts, failed, left


def _opened(who: AnswererSettings, limited: Callable[..., Limited], seconds: float) -> Limited:
    """One answerer within its limits."""
    own = partial(
        limited, concurrency=who.concurrency, price=Price(who.prompt_price, who.answer_price)
    )
    if not who.model:
        raise UserError("generator.model: name a URL or a weights folder")
    if not who.model.startswith(("http://", "https://")):
        from flywright.recipe.answerers import engine  # torch, only where it answers

        return own(engine(Path(who.model), who.name))
    from flywright.serve.client import HttpCompleter, NemoCompleter

    key = os.environ.get(who.api_key_variable, "") if who.api_key_variable else ""
    if who.wire == "nemo":
        return own(NemoCompleter(who.model, who.name, key, seconds))
    http = HttpCompleter(who.model, who.model_at_endpoint, key, seconds)
    return own(http, load=http.load)


def _code_hash() -> str:
    """Of the code and the words that decide what replies give: with them, shards are made anew."""
    root = Path(__file__).parents[1]
    paths = [path for name in MAKING for path in (root / name, *(root / name).rglob("*"))]
    return digest(
        [file_hash(path) for path in sorted(paths) if path.suffix in (".py", ".txt", ".toml")]
    )


@dataclass
class _Run:
    """One process's part in a flow."""

    entry: Whole | Each
    maker: Maker
    job: Job
    crew: Crew
    limits: list[Limited]
    fingerprint: str
    work: Path
    stopped: Stopped | None = None
    done: int = 0  # input records, and those that this process has paid for
    filled: int = 0
    total: int = 0
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    async def make(self) -> dict[int, Info]:
        """All shards, in order: those first that nobody else is at."""
        infos: dict[int, Info] = {}
        for wait in (False, True):
            work = partial(self.shard, wait=wait)
            async with aclosing(ordered(work, self.shards(infos), AT_ONCE)) as stream:
                async for number, info in stream:
                    if info is not None:
                        infos[number] = info
                        self.count(info)
        return infos

    def shards(self, known: dict[int, Info]) -> Iterator[tuple[int, list[Any] | None]]:
        """(number, input records) of the shards that are not known; None = whatever it reads."""
        if isinstance(self.entry, Whole):
            yield from [] if known else [(0, None)]
            return
        if len(known) < self.shard_count:
            records = read_jsonl(self.data, self.entry.kind)
            size = self.job.own.shard_records
            for number in range(self.shard_count):
                some = list(itertools.islice(records, size))
                if number not in known:
                    yield number, some

    @property
    def data(self) -> Path:
        """The input file. Raises UserError if none is named."""
        if self.job.own.data is None:
            raise UserError("this flow needs data = FILE, a JSONL of records")
        return self.job.own.data

    @property
    def shard_count(self) -> int:
        return -(-self.total // self.job.own.shard_records)

    async def shard(
        self, item: tuple[int, list[Any] | None], wait: bool
    ) -> tuple[int, Info | None]:
        """Make one shard, unless it is made already; nothing if another worker is at it."""
        number, records = item
        texts = None if records is None else [one.model_dump_json() for one in records]
        path = self.work / "shards" / f"{number:06d}-{digest(self.fingerprint, texts)}.json"
        if (info := self.made(path)) is not None or (self.stopped and not path.exists()):
            return number, info
        if records is None:  # all workers make it, and share what they ask for
            return number, await self.fill(path, None)
        async with self.crew.lease(path.stem, wait) as held:
            if not held:
                return number, None
            return number, self.made(path) or await self.fill(path, records)

    def made(self, path: Path) -> Info | None:
        """A shard that is done, or that ended in this run as well as it could."""
        if not path.exists():
            return None
        info = read_json(path)
        final = not info["failed"] and not info["left"]
        return info if final or path.stat().st_mtime >= self.crew.began or self.stopped else None

    async def fill(self, path: Path, records: list[Any] | None) -> Info:
        """Make a shard's records and write them, then what is to be told of them."""
        maker = replace(self.maker, counts={}, failed=[], stopped=None)
        if isinstance(self.entry, Whole):
            self.maker = maker  # its progress is the flow's
            flow = self.entry.make(maker, self.job)
        else:
            maker.tick = silent
            flow = self.entry.make(maker, self.job, records or [])
        made = await maker.unless_stopped(flow)
        self.stopped = self.stopped or maker.stopped
        count = write_jsonl(path.with_suffix(".jsonl"), made)
        self.filled += len(records or ())
        info = {
            "file": path.with_suffix(".jsonl").name,
            "read": len(records or ()),
            "records": count,
            "counts": maker.counts,
            "failed": [failure.model_dump() for failure in maker.failed or ()],
            "left": maker.stopped is not None,
        }
        write_json(path, info)
        return info

    def count(self, info: Info) -> None:
        """Add a shard to what is told."""
        self.done += info["read"]
        for name, counts in info["counts"].items():
            kept = self.counts.setdefault(name, {})
            for key, value in counts.items():
                kept[key] = kept.get(key, 0) + value

    async def join(self, infos: dict[int, Info]) -> Info:
        """The shards as one file, what failed, and the manifest; once, whoever comes first."""
        own = self.job.own
        found = [infos[number] for number in sorted(infos)]
        failed = [Failure(**failure) for info in found for failure in info["failed"]]
        manifest = {
            "fingerprint": self.fingerprint,
            "complete": len(found) == max(1, self.shard_count) and not self.stopped and not failed,
            "records": sum(info["records"] for info in found),
            "failed": len(failed),
            "counts": self.counts,
            "shards": [info["file"] for info in found],
        }
        async with self.crew.lease("join"):
            known = read_json(self.work / "manifest.json", missing_ok=True)
            if known == manifest and own.out.exists():
                return manifest
            with atomic_file(own.out) as temporary, temporary.open("wb") as target:
                for name in manifest["shards"]:
                    with (self.work / "shards" / name).open("rb") as source:
                        shutil.copyfileobj(source, target)
            if isinstance(self.entry, Each) and self.entry.after:
                self.entry.after(own)
            listed = own.out.with_suffix(".failed.jsonl")
            if failed:
                write_jsonl(listed, failed)
            else:
                listed.unlink(missing_ok=True)
            write_json(self.work / "manifest.json", manifest)
        return manifest

    async def tell(self, teller: Teller, name: str, helpers: Helpers | None) -> None:
        """Progress, until it is cancelled; once, what it will all come to."""
        tick, stage = teller.begin(name), (0, 0, "")
        spent, budget = self.crew.budget.mine, self.crew.budget
        began, foretold = time.monotonic(), False

        def hear(done: int, total: int, note: str) -> None:
            nonlocal stage
            stage = (done, total, note)

        self.maker.tick = hear
        while True:
            await asyncio.sleep(TELL_SECONDS)
            if helpers:
                helpers.look()
            done, total, note = (self.done, self.total, "") if self.total else stage
            seconds = time.monotonic() - began
            rate = spent.tokens / seconds
            left = f"{seconds / done * (total - done):.0f} s left" if 0 < done < total else ""
            flying = sum(limited.in_flight for limited in self.limits)
            cost = f"{spent.money + budget.others.money:.4g} money" if spent.money else ""
            parts = [note, f"{flying} in flight", _dropped(self.counts or self.maker.counts)]
            parts += [f"{rate:,.0f} tokens/s", cost, left]
            tick(done, total, " · ".join(part for part in parts if part))
            paid = self.filled if self.total else done
            if not foretold and done < total and paid >= max(PILOT_RECORDS, total * PILOT_SHARE):
                foretold = True
                teller.say(self.forecast(paid, paid + total - done, note))

    def forecast(self, done: int, total: int, flow: str) -> str:
        """What the records that are left (of one flow) will cost, by what those before cost."""
        costs, budget = self.maker.costs, self.crew.budget
        found = [
            one.forecast(round(one.count * (total - done) / done))
            for one in ([costs[flow]] if flow else costs.values())
        ]
        tokens, half = sum(mean for mean, _ in found), math.hypot(*(half for _, half in found))
        price = budget.mine.money / max(1, budget.mine.tokens)
        line = f"forecast after {done:,} of {total:,} {flow or 'records'}: "
        line += f"{tokens:,.0f} ± {half:,.0f} tokens more"
        line += f", {tokens * price:.4g} ± {half * price:.2g} money" if price else ""
        over = [
            name
            for name, more in (("tokens", tokens), ("money", tokens * price))
            if 0 < getattr(budget, name) < budget.spent(name) + more
        ]
        return line + "".join(f"; more than the budget of {name}" for name in over)


def _dropped(counts: dict[str, dict[str, int]]) -> str:
    """How many records were dropped, the three commonest reasons first."""
    reasons: Counter[str] = Counter()
    for each in counts.values():
        for key, count in each.items():
            if key.startswith("dropped: "):
                reasons[key[9:]] += count
    if not reasons:
        return ""
    told = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common(3))
    return f"{sum(reasons.values())} dropped ({told})"


def _read_by(flow: str, own: FlowFile) -> list[Path]:
    """What a flow that makes all its records in one go reads."""
    paths = [own.data, *(path for path in vars(own.prompts).values() if isinstance(path, Path))]
    paths += [own.out.with_name(f"{name}.jsonl") for name in READ.get(flow, ())]
    return [path for path in paths if path is not None and path.exists()]


def _hash(path: Path) -> str:
    return folder_hash(path) if path.is_dir() else file_hash(path)


async def _go(run: _Run, name: str, teller: Teller, helpers: Helpers | None) -> str:
    own, began = run.job.own, time.monotonic()
    telling = asyncio.create_task(run.tell(teller, name, helpers))
    await asyncio.sleep(0)
    try:
        manifest = await run.join(await run.make())
    finally:
        telling.cancel()
    told = {**run.maker.counts, **run.counts}
    write_card(own.out.with_suffix(".card.md"), [(own.out.name, own.out)], told)
    line = f"{name}: {manifest['records']} records in {own.out}; {told}"
    teller.finished(name, time.monotonic() - began)
    if run.stopped:
        kind = FlywrightError if run.stopped.fault == "bug" else Stopped  # time will not mend it
        raise kind(f"{line}; stopped: {run.stopped}")
    if manifest["failed"]:
        listed = own.out.with_suffix(".failed.jsonl")
        raise FlywrightError(
            f"{line}; {manifest['failed']} failed, listed in {listed}: run it again"
        )
    return line


def _work(flow: str, path: Path, overrides: list[str], workers: int, number: int) -> str:
    """One process's part in the flow, with `workers` - 1 more beside it."""
    own = load_settings(FlowFile, path, overrides)
    if not own.out.suffix:
        own = own.model_copy(update={"out": own.out / f"{flow}.jsonl"})
    entry, work = FLOWS[flow], own.out.with_suffix(".work")
    budget = Budget(**own.budget.model_dump())
    with (
        Teller(own.out.with_suffix(".log")) as teller,
        Crew(work, budget, number, parent=int(os.environ.get(PARENT, 0))) as crew,
        Ledger(work / "ledger", crew.lease) as ledger,
    ):
        crew.refresh = ledger.refresh
        if ledger.damaged:
            teller.say(f"{ledger.path}: {ledger.damaged} damaged lines; their calls are paid again")
        named = own.generator if isinstance(own.generator, list) else [own.generator]
        patience = Patience(**own.patience.model_dump())
        limiting = partial(Limited, patience=patience, budget=budget, tell=teller.say)
        limited = [_opened(who, limiting, patience.try_seconds) for who in named]
        shares = [who.weight for who in named]
        remembering = (Ledgered(one, ledger) for one in limited)
        mixed = Mixed(list(zip(remembering, shares, strict=True)), own.seed)
        job = Job(own, ledger, mixed, limiting)
        made_by = own.model_dump(mode="json", exclude=BESIDE)
        data = [_hash(path) for path in _read_by(flow, own)] if isinstance(entry, Whole) else []
        names = [job.scorer.model if job.scorer else "", *(who.model for who in job.each.values())]
        fingerprint = digest(flow, made_by, data, names, shares, _code_hash())
        maker = Maker(mixed, own.synth, own.seed, failed=[], crew=crew)
        run = _Run(entry, maker, job, crew, limited, fingerprint, work)
        if isinstance(entry, Each):  # a bad line is told before anything is paid for
            run.total = sum(1 for _ in read_jsonl(run.data, entry.kind))
        arguments = [flow, str(path), *(f"--set={one}" for one in overrides)]
        helpers = Helpers(workers - 1, arguments, teller.say) if workers > 1 else None
        try:
            return asyncio.run(_go(run, flow, teller, helpers))
        finally:
            if helpers:
                helpers.look(wait=True)


def run_one(flow: str, path: Path, overrides: list[str], workers: int = 1, ray: str = "") -> str:
    """Run one flow; returns a line with the counts. Raises UserError for an unknown flow, Stopped
    where a budget is spent or too much fails, FlywrightError where records failed."""
    if flow in OVER_FILES:
        from flywright.recipe import filtering  # which knows all benchmarks: torch with them

        return (filtering.run_filter if flow == "filter" else filtering.card)(path, overrides)
    if flow not in FLOWS:
        raise UserError(f"no flow {flow!r}; known: {', '.join([*FLOWS, *OVER_FILES])}")
    if ray:
        return on_ray(ray, workers, partial(_work, flow, path.resolve(), overrides, 1))
    return _work(flow, path, overrides, workers, number_here())
