"""Pretrained networks that turn a waveform into an embedding: TensorFlow Lite, ONNX, SavedModel and Keras files.

`fsat.backbones.descriptor` reads and writes the description of one, `fsat.backbones.runtime` computes embeddings,
`fsat.backbones.probe` tries a network in a process of its own, `fsat.backbones.inspect` describes a new one, and
`fsat.backbones.library` keeps copies. The four formats have a module each; for the others a file is a
`fsat.backbones.network.ModelFile`. Code that a file brings never runs: a file with any is refused before it is loaded.
"""
