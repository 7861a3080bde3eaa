"""ONNX back end: capture a model with torch.export, lower it to ONNX, simplify the graph, stream its weights."""
