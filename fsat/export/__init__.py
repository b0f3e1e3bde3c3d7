"""A tagger as one ONNX, TensorFlow Lite or Keras file: a waveform in, scores out."""
