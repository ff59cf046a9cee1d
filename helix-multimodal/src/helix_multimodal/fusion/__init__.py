"""Several kinds of data about one thing become one vector."""
