"""From records and documents to batches.

documents -> filters -> shards -> blend (windows)   | both give Samples, which the loader
dialogues, ratings, comparisons -> examples          | puts in an exact, seekable order.
"""
