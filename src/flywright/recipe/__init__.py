"""The road: steps that are skipped when done and resumed when killed, and the stages they run.

step.py is the mechanism, stages.py the recipe itself (one short function a stage: the main path),
loop.py the order of the stages and the flywheel's turns, run.py what `flywright run` does.
"""
