"""Data sets: raw files with checksums, readers, and the prepared arrays that training maps into memory."""
