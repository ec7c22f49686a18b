"""From many runs to tables, figures and the page: collect, compare, report."""
