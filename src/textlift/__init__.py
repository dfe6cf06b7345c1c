"""textlift."""
