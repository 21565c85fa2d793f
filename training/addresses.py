"""Addresses of files, as they may be told."""


def without_secrets(url: str) -> str:
    """A path as it is; of a URL neither login nor query, where signatures stand."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    place, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}{mark}{place.rpartition('@')[2]}{slash}{path}"
