"""OpenAI's Completions, the API before chats: a prompt, and a text that goes on from it."""
