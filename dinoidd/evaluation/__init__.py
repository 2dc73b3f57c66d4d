"""Predictions against ground truth: paired, counted, scored, compared and drawn."""
