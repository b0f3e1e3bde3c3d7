"""Train one fold and predict with it; knows nothing of MLflow.

`fsat.training.fold.train_fold` is the entry point: it prepares the batches, calls `fsat.training.loop.fit` and predicts
every clip. Results are reproducible bit by bit, also when a training is interrupted and resumed.
"""
