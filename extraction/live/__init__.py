"""Teachers that can be asked: their networks from derivatives, and further questions about what the answers leave open."""
