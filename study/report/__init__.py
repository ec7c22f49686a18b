"""One HTML page of a study's results: `python -m study.report`."""
