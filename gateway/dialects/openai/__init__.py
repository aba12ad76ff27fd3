"""The dialect of OpenAI Chat Completions, spoken by clients and by most backends.

Source: https://platform.openai.com/docs/api-reference/chat
"""
