"""Training: one loop for language modelling, reward regression, SFT, DPO and RPO.

objectives/ are pure functions; loop.py is the only file that calls backward().
"""
