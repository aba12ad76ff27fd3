// The official clients for Node.js, feature by feature: reads one JSON line per feature from standard input,
// {client, feature, baseUrl, key, model}, and answers with one: {ok: true} or {ok: false, error}.
//
// What the model will say is queued by whoever writes the lines, as in tests/support/matrix/openai_chat.py.
import assert from 'node:assert/strict';
import readline from 'node:readline';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

const PIXEL =
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
const WEATHER = 'It rains in Bonn and the sun shines in Rome.';
const CITIES = ['Bonn', 'Rome'];
const SCHEMA = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
const STRICT = { ...SCHEMA, additionalProperties: false };
const DESCRIPTION = 'The weather of a city';

async function rejects(promise, kind) {
  await assert.rejects(promise, (error) => error instanceof kind || Promise.reject(error));
}

async function caught(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  assert.fail('nothing was raised');
}

function chat({ baseUrl, key, model }) {
  const options = { baseURL: `${baseUrl}/v1`, maxRetries: 0, timeout: 20_000 };
  const client = new OpenAI({ ...options, apiKey: key });
  const user = (content) => ({ role: 'user', content });
  const hello = [user('Hello')];
  const tools = [
    { type: 'function', function: { name: 'get_weather', description: DESCRIPTION, parameters: SCHEMA } },
  ];
  const ask = async (messages, more = {}) =>
    (await client.chat.completions.create({ model, messages, ...more })).choices[0].message;
  const cities = (message) => message.tool_calls.map((call) => JSON.parse(call.function.arguments).city);

  async function loop(count) {
    const messages = [user('Weather?')];
    const asked = await ask(messages, { tools });
    assert.deepEqual(cities(asked), CITIES.slice(0, count));
    messages.push(asked);
    for (const call of asked.tool_calls) {
      messages.push({ role: 'tool', tool_call_id: call.id, content: `of ${call.id}` });
    }
    assert.equal((await ask(messages, { tools })).content, WEATHER);
  }

  return {
    text: async () => assert.equal((await ask(hello, { max_tokens: 50 })).content, 'Good morning'),
    system: async () => ask([{ role: 'system', content: 'Be kind.' }, ...hello]),
    turns: async () =>
      assert.equal(
        (await ask([user('I like blue.'), { role: 'assistant', content: 'Noted.' }, user('What?')])).content,
        'Blue',
      ),
    image: async () => {
      const url = `data:image/png;base64,${PIXEL}`;
      await ask([user([{ type: 'text', text: 'What?' }, { type: 'image_url', image_url: { url } }])]);
    },
    tool: () => loop(1),
    tools: () => loop(2),
    stream: async () => {
      const pieces = [];
      for await (const chunk of await client.chat.completions.create({ model, messages: hello, stream: true })) {
        pieces.push(chunk.choices[0]?.delta?.content ?? '');
      }
      assert.equal(pieces.join(''), WEATHER);
      assert.ok(pieces.filter((piece) => piece).length > 1);
    },
    stream_tools: async () => {
      const stream = client.chat.completions.stream({ model, messages: hello, tools });
      assert.deepEqual(cities((await stream.finalChatCompletion()).choices[0].message), CITIES);
    },
    stop: async () => ask(hello, { stop: ['END'] }),
    structured: async () => {
      const format = { type: 'json_schema', json_schema: { name: 'City', schema: STRICT, strict: true } };
      assert.deepEqual(JSON.parse((await ask(hello, { response_format: format })).content), { city: 'Bonn' });
    },
    refused: () => rejects(ask(hello), OpenAI.BadRequestError),
    wrong_key: () =>
      rejects(
        new OpenAI({ ...options, apiKey: 'x'.repeat(20) }).chat.completions.create({ model, messages: hello }),
        OpenAI.AuthenticationError,
      ),
    unknown_model: () =>
      rejects(client.chat.completions.create({ model: 'nothing', messages: hello }), OpenAI.NotFoundError),
    limited: async () => {
      const error = await caught(ask(hello));
      assert.ok(error instanceof OpenAI.RateLimitError, String(error));
      assert.ok(Number(error.headers.get('retry-after')) > 0);
    },
    failed: async () => assert.equal((await caught(ask(hello))).status, 502),
    overloaded: async () => assert.equal((await caught(ask(hello))).status, 503),
    breaks: async () => {
      const read = async () => {
        for await (const _ of await client.chat.completions.create({ model, messages: hello, stream: true }));
      };
      await rejects(read(), OpenAI.APIError);
    },
  };
}

function responses({ baseUrl, key, model }) {
  const options = { baseURL: `${baseUrl}/v1`, maxRetries: 0, timeout: 20_000 };
  const client = new OpenAI({ ...options, apiKey: key });
  const tools = [
    { type: 'function', name: 'get_weather', description: DESCRIPTION, parameters: SCHEMA, strict: false },
  ];
  const ask = (input, more = {}) => client.responses.create({ model, input, ...more });
  const calls = (response) => response.output.filter((item) => item.type === 'function_call');
  const cities = (response) => calls(response).map((call) => JSON.parse(call.arguments).city);

  async function loop(count) {
    const asked = await ask('Weather?', { tools });
    assert.deepEqual(cities(asked), CITIES.slice(0, count));
    const results = calls(asked).map(({ call_id }) => ({ type: 'function_call_output', call_id, output: 'of it' }));
    const answer = await ask(results, { tools, previous_response_id: asked.id });
    assert.equal(answer.output_text, WEATHER);
  }

  return {
    text: async () => assert.equal((await ask('Hello')).output_text, 'Good morning'),
    system: async () => ask('Hello', { instructions: 'Be kind.' }),
    turns: async () => {
      const first = await ask('I like blue.');
      assert.equal((await ask('What?', { previous_response_id: first.id })).output_text, 'Blue');
    },
    image: async () => {
      const image = { type: 'input_image', image_url: `data:image/png;base64,${PIXEL}`, detail: 'auto' };
      await ask([{ role: 'user', content: [{ type: 'input_text', text: 'What?' }, image] }]);
    },
    tool: () => loop(1),
    tools: () => loop(2),
    stream: async () => {
      const stream = client.responses.stream({ model, input: 'Hello' });
      const pieces = [];
      for await (const event of stream) {
        if (event.type === 'response.output_text.delta') pieces.push(event.delta);
      }
      assert.equal(pieces.join(''), WEATHER);
      assert.equal((await stream.finalResponse()).output_text, WEATHER);
    },
    stream_tools: async () => {
      const stream = client.responses.stream({ model, input: 'Weather?', tools });
      assert.deepEqual(cities(await stream.finalResponse()), CITIES);
    },
    structured: async () => {
      const format = { type: 'json_schema', name: 'City', schema: STRICT, strict: true };
      assert.deepEqual(JSON.parse((await ask('Where?', { text: { format } })).output_text), { city: 'Bonn' });
    },
    refused: () => rejects(ask('Hello'), OpenAI.BadRequestError),
    wrong_key: () =>
      rejects(
        new OpenAI({ ...options, apiKey: 'x'.repeat(20) }).responses.create({ model, input: 'Hello' }),
        OpenAI.AuthenticationError,
      ),
    unknown_model: () => rejects(client.responses.create({ model: 'nothing', input: 'x' }), OpenAI.NotFoundError),
    limited: async () => {
      const error = await caught(ask('Hello'));
      assert.ok(error instanceof OpenAI.RateLimitError, String(error));
      assert.ok(Number(error.headers.get('retry-after')) > 0);
    },
    failed: async () => assert.equal((await caught(ask('Hello'))).status, 502),
    overloaded: async () => assert.equal((await caught(ask('Hello'))).status, 503),
    breaks: async () => {
      const kinds = [];
      try {
        for await (const event of await ask('Hello', { stream: true })) kinds.push(event.type);
      } catch (error) {
        assert.ok(error instanceof OpenAI.APIError); // it broke before the client was told anything
        return;
      }
      assert.equal(kinds.at(-1), 'response.failed');
    },
    count: async () =>
      assert.ok((await client.responses.inputTokens.count({ model, input: 'Hello' })).input_tokens > 0),
  };
}

function messages({ baseUrl, key, model }) {
  const options = { baseURL: baseUrl, maxRetries: 0, timeout: 20_000 };
  const client = new Anthropic({ ...options, apiKey: key });
  const user = (content) => ({ role: 'user', content });
  const hello = [user('Hello')];
  const tools = [{ name: 'get_weather', description: DESCRIPTION, input_schema: SCHEMA }];
  const ask = (said, more = {}) => client.messages.create({ model, max_tokens: 100, messages: said, ...more });
  const text = (message) => message.content.filter((block) => block.type === 'text').map(({ text }) => text).join('');
  const calls = (message) => message.content.filter((block) => block.type === 'tool_use');

  async function loop(count) {
    const said = [user('Weather?')];
    const asked = await ask(said, { tools });
    assert.equal(asked.stop_reason, 'tool_use');
    assert.deepEqual(calls(asked).map((call) => call.input), CITIES.slice(0, count).map((city) => ({ city })));
    said.push({ role: 'assistant', content: asked.content });
    said.push(user(calls(asked).map(({ id }) => ({ type: 'tool_result', tool_use_id: id, content: 'of it' }))));
    assert.equal(text(await ask(said, { tools })), WEATHER);
  }

  return {
    text: async () => assert.equal(text(await ask(hello)), 'Good morning'),
    system: async () => ask(hello, { system: 'Be kind.' }),
    turns: async () =>
      assert.equal(
        text(await ask([user('I like blue.'), { role: 'assistant', content: 'Noted.' }, user('What?')])),
        'Blue',
      ),
    image: async () => {
      const image = { type: 'image', source: { type: 'base64', media_type: 'image/png', data: PIXEL } };
      await ask([user([{ type: 'text', text: 'What?' }, image])]);
    },
    tool: () => loop(1),
    tools: () => loop(2),
    stream: async () => {
      const stream = client.messages.stream({ model, max_tokens: 100, messages: hello });
      assert.equal(text(await stream.finalMessage()), WEATHER);
    },
    stream_tools: async () => {
      const stream = client.messages.stream({ model, max_tokens: 100, messages: hello, tools });
      assert.deepEqual(calls(await stream.finalMessage()).map((call) => call.input), CITIES.map((city) => ({ city })));
    },
    stop: async () => ask(hello, { stop_sequences: ['END'] }),
    structured: async () => {
      const format = { type: 'json_schema', schema: STRICT };
      const answer = await ask(hello, { output_config: { format } });
      assert.deepEqual(JSON.parse(text(answer)), { city: 'Bonn' });
    },
    refused: () => rejects(ask(hello), Anthropic.BadRequestError),
    wrong_key: () =>
      rejects(
        new Anthropic({ ...options, apiKey: 'x'.repeat(20) }).messages.create({ model, max_tokens: 9, messages: hello }),
        Anthropic.AuthenticationError,
      ),
    unknown_model: () =>
      rejects(client.messages.create({ model: 'nothing', max_tokens: 9, messages: hello }), Anthropic.NotFoundError),
    limited: async () => {
      const error = await caught(ask(hello));
      assert.ok(error instanceof Anthropic.RateLimitError, String(error));
      assert.ok(Number(error.headers.get('retry-after')) > 0);
    },
    failed: async () => assert.ok((await caught(ask(hello))).status >= 500),
    overloaded: async () => assert.match(JSON.stringify((await caught(ask(hello))).error), /overloaded_error/),
    breaks: async () => {
      const stream = client.messages.stream({ model, max_tokens: 100, messages: hello });
      await rejects(stream.finalMessage(), Anthropic.APIError);
    },
    count: async () =>
      assert.ok((await client.messages.countTokens({ model, messages: hello })).input_tokens > 0),
  };
}

const CLIENTS = { chat, responses, messages };

for await (const line of readline.createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  let answer = { ok: true };
  try {
    await CLIENTS[asked.client](asked)[asked.feature]();
  } catch (error) {
    answer = { ok: false, error: String(error?.stack ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
