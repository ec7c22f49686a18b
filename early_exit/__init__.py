"""From logits to decisions: logits files, WISE weights, exit thresholds, policies."""
