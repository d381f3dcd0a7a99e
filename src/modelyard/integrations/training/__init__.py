"""Training by recipe: a table of rows becomes features, an estimator, its figures on held-out rows, and a version."""
