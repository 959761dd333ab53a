"""What runs a network, images -> logits: torch, ONNX Runtime, OpenVINO, MindSpore."""
