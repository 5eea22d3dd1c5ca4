"""One run of a recipe, from its data to the model and the record of it."""
