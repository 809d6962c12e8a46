"""A local web server over an archive: an interface over HTTP, and one page that uses it."""
