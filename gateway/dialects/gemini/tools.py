"""Functions and the choice among them as Gemini takes them.

Source: https://ai.google.dev/api/caching#FunctionDeclaration, https://ai.google.dev/api/caching#FunctionCallingConfig.
"""

from __future__ import annotations

from gateway.dialects import form
from gateway.dialects.ask import Ask
from gateway.dialects.gemini.schema import CallingConfig, Declaration, Tool, ToolConfig


def tools_of(ask: Ask) -> tuple[list[Tool] | None, ToolConfig | None]:
    """``tools``, ``tool_choice`` and ``parallel_tool_calls``. Raises InvalidRequest."""
    if ask.boolean("parallel_tool_calls") is False:
        ask.cannot("parallel_tool_calls", "it may always make several calls at once")
    choice = ask.tool_choice()
    asked = ask.tools()
    if not asked:  # a choice among none says nothing
        return None, None
    declarations = [_declaration(tool.function) for tool in asked]
    is_strict = any(tool.function.strict for tool in asked)
    calling = _calling(choice, is_strict=is_strict)
    return (
        [Tool(function_declarations=declarations)],
        None if calling is None else ToolConfig(function_calling_config=calling),
    )


def _declaration(function: form.FunctionSpec) -> Declaration:
    return Declaration(
        name=function.name, description=function.description, parameters_json_schema=form.given(function.parameters)
    )


def _calling(choice: form.ToolChoice | None, *, is_strict: bool) -> CallingConfig | None:
    """None where the model decides. VALIDATED: it decides, and calls keep to their schemas, as ``strict`` demands."""
    match choice:
        case None | "auto":
            return CallingConfig(mode="VALIDATED") if is_strict else None
        case "none":
            return CallingConfig(mode="NONE")
        case "required":
            return CallingConfig(mode="ANY")
        case form.NamedChoice():
            return CallingConfig(mode="ANY", allowed_function_names=[choice.function.name])
