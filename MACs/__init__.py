"""What each method costs, counted on networks without weights."""
