"""HTTP: FastAPI apps. The only place for pydantic."""
