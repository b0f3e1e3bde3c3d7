"""Compare fsat with the notebook, librosa, numpy, PyTorch and itself.

``python -m benchmarks DATA_DIR`` writes the results to RESULTS.md. Nothing in `fsat` imports from here.
"""
