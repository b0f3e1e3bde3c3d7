"""Train an audio tagger from a folder of labelled clips and track every step with MLflow.

Each package imports only from those above it:

    errors, files, config, options ...      settings and helpers without heavy imports
    parallel                                threads, processes, Ray
    metrics                                 ranking, blending, calibration, label noise
    data                                    tables, folds, audio, decoded clips, features
    download                                published datasets and backbones
    models                                  Keras builders, layers, losses
    backbones                               pretrained networks: waveforms in, embeddings out
    training                                one fold, without MLflow
    reports                                 pages, figures, tables
    tagging                                 the registered tagger; tags of files and recordings
    export                                  a tagger as ONNX, TensorFlow Lite or Keras
    tracking                                MLflow
    commands                                one module per command
    serving, app                            HTTP server and browser page
    cli                                     click
"""

__version__ = "0.2.0"
