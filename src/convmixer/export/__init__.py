"""Weights out of training and into use: exported files, each proven to answer as the weights do."""
