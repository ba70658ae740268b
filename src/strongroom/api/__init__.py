"""The broker over HTTP: FastAPI and uvicorn live here and nowhere below."""
