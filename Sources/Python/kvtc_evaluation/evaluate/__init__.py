"""The evaluation: what every mode and ratio costs in quality, and the report of it."""
