"""What runs on the GPU: kernels in Triton's Python. Imported only where `convmixer.kernels.limits` finds Triton."""
