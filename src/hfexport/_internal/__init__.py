"""Child processes: start them, limit their access, read their answers and end them."""
