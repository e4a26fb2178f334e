"""The checks behind a certificate: which weights the answers determine, how exactly, and what a network leaves of the answers."""
