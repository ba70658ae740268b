"""The broker over HTTP: the event loop of the server and the parser of HTTP live here and nowhere below."""
