"""The broker over HTTP: Starlette and uvicorn live here and nowhere below."""
