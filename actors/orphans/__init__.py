"""Objects without a live owner: found, judged, removed."""
