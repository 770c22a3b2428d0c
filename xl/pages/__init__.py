"""Pages: read them, name them, and keep those worth answering."""
