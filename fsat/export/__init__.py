"""Export a tagger as one ONNX, TensorFlow Lite or Keras file: a waveform in, scores out.

The package is optional: only `fsat.commands.export` imports it.
"""
