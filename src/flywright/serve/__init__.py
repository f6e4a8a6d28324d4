"""Servers and clients over HTTP: one app with three wires, and Completers that speak to such apps.

app.py puts the wires together: nemo_wire (`PUT /generate`), openai_wire (`/v1/...`), reward_wire
(`/v1/rewards`, hosted format). client.py asks such servers, fake.py is a deterministic endpoint for
rehearsals. Who answers is handed in: a Completer, a Scorer.
"""

from flywright.serve.app import ServeSettings, create_app
from flywright.serve.client import HttpCompleter, HttpScorer
from flywright.serve.fake import create_fake_app

__all__ = ["HttpCompleter", "HttpScorer", "ServeSettings", "create_app", "create_fake_app"]
