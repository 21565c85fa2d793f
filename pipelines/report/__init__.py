"""What the card stage shows: counts from the manifests, charts, pictures, the page."""
