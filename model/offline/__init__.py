"""How models are made and measured: data sets, training, export to ONNX, evaluation. Serving code never imports it."""
