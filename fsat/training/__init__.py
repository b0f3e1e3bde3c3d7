"""Training one fold and predicting with it; knows nothing of MLflow."""
