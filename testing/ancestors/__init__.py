"""What OpenLTH and the published Expand-and-Cluster compute, as small facts: numbers from their formulas, written down independently."""
