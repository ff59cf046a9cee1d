"""The processes that train one model together: what each does alone, and what they agree on."""
