"""Benchmarks of fsat against what it replaces: the notebook's way, librosa, numpy, PyTorch, and fsat itself.

Run by ``python -m benchmarks DATA_DIR``; the results stand in RESULTS.md. Nothing in `fsat` imports from here.
"""
