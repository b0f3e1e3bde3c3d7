"""What stands between MLflow's scoring server and the tagger: limits, the check of requests, warm-up.

It travels with the registered model, and comes into play where `mlflow models serve` loads one.
"""
