"""fsat tags sounds: from a folder of labelled clips to a registered tagger, every step tracked by MLflow.

The packages stand in tiers, and each imports only from those above it:

    errors, interrupts, settings, launch, config ...  facts and small helpers, no heavy imports
    scoring                                         numpy, scipy to fit: mAP@3, AP, blending, calibration
    data                                            tables, audio, decoded clips, features, folds
    datasets                                        published datasets, downloaded
    models                                          Keras builders
    training, reports, serving                      one fold; tables and figures; what guards a served tagger
    tagger                                          the model that is registered
    tracking                                        MLflow
    pipeline                                        the entry points as plain functions
    app                                             Gradio: the page
    cli                                             click
"""

__version__ = "0.1.0"
