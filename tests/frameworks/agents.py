"""Agents of other people's frameworks, each with a tool, through the gateway: ``agents.py NAME BASE_URL KEY MODEL``.

Runs in an environment of its own (``tools/frameworks.sh``), and so imports nothing of this project. Prints one JSON
document: what the tool was called with, and what the agent says in the end.
"""

import asyncio
import json
import sys

QUESTION = "How is the weather in Bonn and in Rome?"
SYSTEM = "Use the tool."


class Weather:
    """The tool, which remembers what it was called with."""

    def __init__(self):
        self.cities = []

    def get_weather(self, city: str) -> str:
        """The weather of a city."""
        self.cities.append(city)
        return f"weather of {city}"


def langchain(make):
    """An agent of LangChain over a chat model that ``make`` makes."""

    def run(weather, base_url, key, model):
        from langchain.agents import create_agent
        from langchain.tools import tool

        agent = create_agent(make(base_url, key, model), [tool(weather.get_weather)], system_prompt=SYSTEM)
        answer = agent.invoke({"messages": [{"role": "user", "content": QUESTION}]})
        return answer["messages"][-1].text

    return run


def _langchain_openai(base_url, key, model):
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(base_url=f"{base_url}/v1", api_key=key, model=model, max_retries=0)


def _langchain_responses(base_url, key, model):
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(base_url=f"{base_url}/v1", api_key=key, model=model, max_retries=0, use_responses_api=True)


def _langchain_anthropic(base_url, key, model):
    from langchain_anthropic import ChatAnthropic

    return ChatAnthropic(base_url=base_url, api_key=key, model=model, max_retries=0, max_tokens=500, streaming=True)


def llamaindex(make):
    """An agent of LlamaIndex over a model that ``make`` makes."""

    def run(weather, base_url, key, model):
        from llama_index.core.agent.workflow import FunctionAgent

        async def main():
            agent = FunctionAgent(tools=[weather.get_weather], llm=make(base_url, key, model), system_prompt=SYSTEM)
            return str(await agent.run(QUESTION))

        return asyncio.run(main())

    return run


def _llamaindex_openai(base_url, key, model):
    from llama_index.llms.openai import OpenAI

    class Named(OpenAI):
        """A model whose name says nothing of what it can do."""

        @property
        def metadata(self):
            from llama_index.core.llms import LLMMetadata

            return LLMMetadata(
                context_window=8192, is_chat_model=True, is_function_calling_model=True, model_name=self.model
            )

    return Named(api_base=f"{base_url}/v1", api_key=key, model=model, max_retries=0)


def _llamaindex_anthropic(base_url, key, model):
    from llama_index.llms.anthropic import Anthropic

    class Named(Anthropic):
        """A model whose name says nothing of what it can do."""

        @property
        def metadata(self):
            from llama_index.core.llms import LLMMetadata

            return LLMMetadata(
                context_window=8192, is_chat_model=True, is_function_calling_model=True, model_name=self.model
            )

    return Named(base_url=base_url, api_key=key, model=model, max_retries=0, max_tokens=500)


def pydantic_ai(make):
    """An agent of Pydantic AI over a model that ``make`` makes."""

    def run(weather, base_url, key, model):
        from pydantic_ai import Agent

        agent = Agent(make(base_url, key, model), instructions=SYSTEM, tools=[weather.get_weather])
        return agent.run_sync(QUESTION).output

    return run


def _pydantic_openai(base_url, key, model):
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    return OpenAIChatModel(model, provider=OpenAIProvider(base_url=f"{base_url}/v1", api_key=key))


def _pydantic_responses(base_url, key, model):
    from pydantic_ai.models.openai import OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    return OpenAIResponsesModel(model, provider=OpenAIProvider(base_url=f"{base_url}/v1", api_key=key))


def _pydantic_anthropic(base_url, key, model):
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    client = AsyncAnthropic(base_url=base_url, api_key=key, max_retries=0)
    return AnthropicModel(model, provider=AnthropicProvider(anthropic_client=client))


AGENTS = {
    "langchain-openai": langchain(_langchain_openai),
    "langchain-responses": langchain(_langchain_responses),
    "langchain-anthropic": langchain(_langchain_anthropic),
    "llamaindex-openai": llamaindex(_llamaindex_openai),
    "llamaindex-anthropic": llamaindex(_llamaindex_anthropic),
    "pydantic-ai-openai": pydantic_ai(_pydantic_openai),
    "pydantic-ai-responses": pydantic_ai(_pydantic_responses),
    "pydantic-ai-anthropic": pydantic_ai(_pydantic_anthropic),
}

if __name__ == "__main__":
    name, base_url, key, model = sys.argv[1:]
    weather = Weather()
    said = AGENTS[name](weather, base_url, key, model)
    sys.stdout.write(json.dumps({"cities": sorted(weather.cities), "said": said}) + "\n")
