"""What turns files into catalogues: one small module a source, and what they share."""
