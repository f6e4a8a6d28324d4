"""Judging answers: ground truth, verifiable instructions, LLM judges, the reward model as judge."""
