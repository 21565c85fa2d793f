"""Fetching from a site: manners, yt-dlp and the mirror, and what their words mean."""
