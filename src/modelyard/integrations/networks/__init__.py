"""Networks in ONNX, taught further with PyTorch: fine-tuned, transferred to other labels, pruned."""
