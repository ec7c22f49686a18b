"""From many runs to tables and figures."""
