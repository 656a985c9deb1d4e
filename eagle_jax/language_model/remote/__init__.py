"""Models behind OpenAI-compatible endpoints: budgets, retries, and every answer kept."""
