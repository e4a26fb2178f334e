"""Networks from the derivatives of a teacher that can be asked."""
