"""What runs leave behind: records, models, provenance."""
