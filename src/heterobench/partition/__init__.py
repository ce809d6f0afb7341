"""Who holds which training example: one pure function per scheme, measured, stored under its content hash."""
