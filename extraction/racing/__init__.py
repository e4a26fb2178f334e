"""Extractions of networks of unknown depth or activation function: hypotheses are raced, and the certificate decides."""
