"""What OpenLTH and the published Expand-and-Cluster compute and write, as small facts."""
