"""Scripts that belong to the documents: one draws the catalogue, one runs well-known mistakes."""
