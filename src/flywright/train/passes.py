"""Forward and backward of a global batch: on one process, or as this rank's share of a mesh.

Micro-batches are those of one process, whatever the mesh; dp ranks are dealt them in turn, and one
that gets fewer is given some in which nothing is trained, since all ranks meet in each. In a
pipeline all have the same number of tokens.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from flywright.data.batch import Batch, Sample, collate, micro_batches
from flywright.parallel import Pipeline, Ranks, exchange
from flywright.train.meter import Meter
from flywright.train.objectives.base import Model, batch_hidden, through
from flywright.train.settings import TrainSettings

# (model or its last chunk, micro-batch, hidden states) -> its share of the global loss
Share = Callable[[Model, Batch, Tensor], Tensor]


class Passes:
    """A model, or this rank's chunks of it, and the way of micro-batches through them.

    zero: as MeshSpec has it; `collect()` takes the gradients of a micro-batch.
    """

    def __init__(
        self, parts: Sequence[Model], ranks: Ranks, settings: TrainSettings, zero: int = 1
    ):
        self.parts, self.ranks = parts, ranks
        self.settings, self._zero = settings, zero
        self._now: Sequence[Batch] = ()
        self._share: Share | None = None
        self._pipeline: Pipeline | None = None
        if ranks.mesh is not None and ranks.size("pp") > 1:
            self._pipeline = Pipeline(parts, ranks.mesh["pp"], self._chunk, self._last)

    @property
    def device(self) -> torch.device:
        """Where batches are computed."""
        mesh = self.ranks.mesh
        if mesh is None:
            return self.parts[0].model.embed_tokens.weight.device
        return torch.device(mesh.device_type)

    @property
    def computes_in(self) -> torch.dtype:
        """The dtype of activations."""
        bf16 = self.settings.precision == "bf16"
        return torch.bfloat16 if bf16 else next(self.parts[0].parameters()).dtype

    def batches(self, samples: Sequence[Sample]) -> list[Batch]:
        """This rank's micro-batches of a global batch."""
        groups = micro_batches(samples, self.settings.micro_batch_tokens)
        own, count = self.ranks.deal(groups)
        tokens = 0
        if self._pipeline is not None:
            count = self._pipeline.round_up(count)
            longest = max(sum(sample.tokens for sample in group) for group in groups)
            tokens = max(longest, self.settings.micro_batch_tokens)
        own += [[] for _ in range(count - len(own))]
        return [self._collated(group, tokens, samples[0]) for group in own]

    def _collated(self, group: Sequence[Sample], tokens: int, like: Sample) -> Batch:
        split = self.ranks.size("tp")  # the sequence's own: its parts must be equal
        tokens = max(tokens, sum(sample.tokens for sample in group), 1)
        return collate(group, -(-tokens // split) * split, like).to(self.device)

    def run(
        self,
        batches: Sequence[Batch],
        share: Share,
        collect: Callable[[], None] | None = None,
        meter: Meter | None = None,
    ) -> None:
        """Each micro-batch forward, and backward where gradients are to be collected."""
        self._share = share
        time = meter.time if meter else (lambda _part: nullcontext())
        if self._pipeline is not None:
            with time("pipeline"):
                self._through_pipeline(self._pipeline, batches, collect is not None)
            if collect:
                collect()
            return
        model = self.parts[0]
        for number, batch in enumerate(batches):
            exchange(model, self._zero > 1 or number == len(batches) - 1)
            with time("forward"):
                loss = share(model, batch, batch_hidden(model, batch))
            if collect:
                with time("backward"):
                    loss.backward()
                    collect()

    def _through_pipeline(self, pipeline: Pipeline, batches: Sequence[Batch], back: bool) -> None:
        self._now = batches
        ids_MN = torch.stack([batch.ids_N for batch in batches])
        positions = ids_MN.shape[1] // self.ranks.size("tp")
        shape = (1, positions, self.parts[0].spec.hidden_size)
        stream = torch.empty(shape, dtype=self.computes_in, device="meta", requires_grad=back)
        pipeline.run(ids_MN, stream, back)

    def _chunk(self, chunk: Model, x_1N: Tensor, number: int) -> Tensor:
        return through(chunk, self._now[number], x_1N)

    def _last(self, hidden_1ND: Tensor, number: int) -> Tensor:
        assert self._share is not None
        return self._share(self.parts[-1], self._now[number], hidden_1ND[0])
