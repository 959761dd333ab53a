"""From a data set to uint8 crops, with NumPy and Pillow; nothing here imports torch."""
