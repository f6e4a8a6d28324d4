"""The engine of a tiny model, that notes what it is asked and how many streams go on."""

import asyncio
import time

from flywright.generate import Engine


class Watched(Engine):
    """`asked`: prompts with their settings; `running` and `cancelled` count answers."""

    def __init__(self, model, tokenizer, seconds_a_step=0.0):
        super().__init__(model, tokenizer, model_name="tiny")
        self.asked = []
        self.running = self.cancelled = 0
        if seconds_a_step:
            share = self._runner._run
            self._runner._run = lambda plan: time.sleep(seconds_a_step) or share(plan)

    async def complete(self, prompt, sampling):
        self._note(prompt, sampling)
        self.running += 1
        try:
            return await super().complete(prompt, sampling)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    def _note(self, prompt, sampling):
        self._constrained(prompt, sampling)  # what cannot be asked raises
        self.asked.append((prompt, sampling))

    async def stream(self, prompt, sampling):
        self._note(prompt, sampling)
        self.running += 1
        try:
            async for part in super().stream(prompt, sampling):
                yield part
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
