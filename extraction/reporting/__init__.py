"""What an extraction says of its result: the verdict, the next step, the page with its pictures, and files for other programs."""
