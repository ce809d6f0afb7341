"""Metrics: functions over scores, records and saved models."""
