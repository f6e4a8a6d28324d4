"""The road: steps that are skipped when done and resumed when killed, and the stages they run.

The main path: run.py (what `flywright run` does) -> loop.py (the stages' order, the flywheel's
turns) -> stages.py (one short function a stage) -> training.py (what each does around train.fit).
step.py is the mechanism under it, answerers.py says who answers; files_road.py is the same road on
others' files, single.py one training step alone, flow_run.py one flow alone, verbs.py the rest.
"""
