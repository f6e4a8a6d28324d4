"""Run untrusted code behind walls: `await Sandbox(settings).run(code, tests) -> Outcome`."""

from flywright.sandbox.run import Job, Outcome, Sandbox, SandboxSettings

__all__ = ["Job", "Outcome", "Sandbox", "SandboxSettings"]
