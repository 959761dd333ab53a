"""AutoAugment's family as timm and torchvision have it: policies by name, and what their magnitudes mean; no torch."""
