"""The dialect of OpenAI Responses, spoken by clients, and by backends whose document says so.

Source: https://platform.openai.com/docs/api-reference/responses
"""
