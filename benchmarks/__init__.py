"""Ratios measured inside one run; each benchmark prints one JSON line."""
