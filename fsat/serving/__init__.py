"""What `mlflow models serve` adds to a registered tagger: limits, checks of requests, warm-up.

The package travels with the registered model; `fsat.tagging` imports it in the process of the scoring server only.
"""
