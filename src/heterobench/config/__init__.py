"""Parameter files: read, checked, resolved. One file is one thing; unknown keys and names are errors."""
