"""Named weights and their processing: folding, centring."""
