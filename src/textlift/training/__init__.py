"""From a wrapped classifier and tokenized rows to trained weights."""
