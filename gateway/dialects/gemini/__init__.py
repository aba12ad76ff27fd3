"""Gemini's ``generateContent``, of the Gemini API and of Vertex AI: chat requests to it, and its answers to chat.

Sources: https://ai.google.dev/api/generate-content, https://ai.google.dev/api/caching#Content,
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference.
"""
