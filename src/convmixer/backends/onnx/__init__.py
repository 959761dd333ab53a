"""ONNX files in ONNX Runtime, looked through and bounded before they run."""
