"""Several models behind one OpenAI-compatible endpoint: keys, limits and metrics in front, Ray Serve LLM behind."""
