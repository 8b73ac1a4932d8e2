"""Published weights: their files, and tables from their names to ours."""
