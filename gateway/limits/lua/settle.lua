-- Ends calls of one kind: charges what each used instead of what was reserved, writes the ledger, learns. Each once: a
-- repetition changes nothing.
--
-- KEYS  1 levels, 2 usage of the day, 3 events, 4... slots of each limit of concurrency, then the record of each lease
-- ARGV  1 limits; number of calls, record_ms, lifetime_s of the ledger, events_max, key, scenario, backend; then of each
--         call: lease id, admitted_ms, input, cached, output, cost, these four again and status as decimal text, estimated,
--         keep, text bytes or 0, choices, 1 for an answer of the cache or 0, variant
--       limits as at the admissions and in their order; tokens and nano-USD; text bytes 0: there is nothing to learn;
--       what is decimal text goes to commands as it is
-- Reply {epoch, {outcome}}: 0 the reservation was corrected, 1 it was unknown and the use was charged, 2 a repetition
--
-- Differences go to the windows that were reserved from. A lease without a record of this epoch was never admitted here,
-- was voided, or was lost: the use is charged in full to the windows of `admitted_ms`, and to a bucket as much of it as
-- has not been refilled since.

local QUANTILE, STEP = 0.95, 0.3 -- of outputs; how far one sample moves it
local OUTPUT_MAX = 1000000000 -- in 1/1000 token
local RATIO_MIN, RATIO_MAX = 10000, 4000000
local SAMPLES_MAX = 64 -- the mean of about so many: slow to forget, but it does

local calls, record_ms, lifetime_s, events_max, key, scenario, backend
offset, calls, record_ms, lifetime_s, events_max, key, scenario, backend = unpack_limit(told, 7, offset)
local slots_end = #KEYS - calls

local fields = {'e', 'i|' .. backend, 'o|' .. scenario}
for place = 1, count do
  fields[place + 3] = limits[place][FIELD]
end
local states = call('HMGET', KEYS[1], unpack(fields))
local epoch = states[1] and unpacked(states[1]) or ''
local ratio, samples, quantile, outputs = 0, 0, 0, 0
if states[2] then
  ratio, samples = unpacked(states[2])
end
if states[3] then
  quantile, outputs = unpacked(states[3])
end

-- The states of limits: of a bucket used, when, rest, hidden; of a budget window, used, window, used; nil where it has none.
local firsts, seconds, thirds, fourths, dirty, window_of = {}, {}, {}, {}, {}, {}
local budgets = 0
for place = 1, count do
  local limit, raw = limits[place], states[place + 3]
  local kind = limit[KIND]
  if kind == RATE then
    firsts[place], seconds[place], thirds[place], fourths[place] =
      bucket_at(raw, limit[AMOUNT], limit[CAPACITY], limit[PERIOD_MS])
  elseif kind ~= CONCURRENCY then
    budgets = budgets + 1
    window_of[place] = 1 + count + budgets -- in the record of a lease
    if raw then
      firsts[place], seconds[place], thirds[place], fourths[place] = unpacked(raw)
    end
  end
end

-- Adds to what is used of a bucket.
local function add(place, difference)
  local used = firsts[place] + difference
  if used <= 0 then
    firsts[place], thirds[place] = 0, 0
  else
    firsts[place] = used > COUNT_MAX and COUNT_MAX or used
  end
  dirty[place] = true
end

-- Charges a use that was never reserved.
local function charge(place, limit, amount, admitted_ms)
  local kind = limit[KIND]
  if kind == RATE then
    local elapsed = now > admitted_ms and now - admitted_ms or 0
    amount = amount - floor(elapsed * limit[AMOUNT] / limit[PERIOD_MS])
    if amount > 0 then
      add(place, amount)
    end
    return
  end
  local period, raw = window_at(kind, admitted_ms), nil
  local one, two = firsts[place], thirds[place]
  if one then
    if two >= 0 and period < floor((two < one and two or one) / GENERATIONS) then
      return -- a window that is over and not kept
    end
    raw = pack(one, seconds[place], two, fourths[place])
  end
  local window, used, other, other_used = budget_at(raw, period)
  firsts[place], seconds[place], thirds[place], fourths[place] = window, bounded(used + amount), other, other_used
  dirty[place] = true
end

local actual, outcomes, ended, today = {1, 0, 0, 0, 0}, {}, {}, floor(now / DAY_MS)
local learned = false
local inputs, cacheds, all_outputs, costs, guesses, hits, requests = 0, 0, 0, 0, 0, 0, 0 -- for the ledger

for number = 1, calls do
  local id, admitted_ms, input, cached, output, cost, input_text, cached_text, output_text, cost_text, status_text
  local estimated, keep, text_bytes, choices, hit, variant
  offset, id, admitted_ms, input, cached, output, cost, input_text, cached_text, output_text, cost_text, status_text,
    estimated, keep, text_bytes, choices, hit, variant = unpack_limit(told, 17, offset)

  local record = call('SET', KEYS[slots_end + number], 's', 'GET', 'PX', record_ms)
  if record == 's' then
    outcomes[number] = 2
  else
    local taken = record and record ~= 'v' and {unpacked(record)}
    taken = taken and taken[1] == epoch and taken
    outcomes[number] = taken and 0 or 1
    actual[TOKENS], actual[INPUT_TOKENS], actual[OUTPUT_TOKENS], actual[COST] = input + output, input, output, cost

    for place = 1, count do
      local limit = limits[place]
      local amount = actual[limit[UNIT]]
      if not amount or keep == 1 and taken then
        amount = nil -- a slot, or what was reserved stays charged
      elseif not taken then
        if amount ~= 0 then
          charge(place, limit, amount, admitted_ms)
        end
      elseif taken[1 + place] >= 0 and amount ~= taken[1 + place] then
        local difference, window = amount - taken[1 + place], window_of[place]
        if not window then
          add(place, difference)
        elseif firsts[place] == taken[window] then
          seconds[place], dirty[place] = bounded(seconds[place] + difference), true
        elseif thirds[place] == taken[window] then
          fourths[place], dirty[place] = bounded(fourths[place] + difference), true
        end -- else that window is not kept any more, or the limit was reset since
      end
    end

    if text_bytes > 0 and count > 0 then
      learned = true
      samples = samples < SAMPLES_MAX and samples + 1 or samples
      local seen = floor(input * 1000000 / text_bytes)
      seen = seen < RATIO_MIN and RATIO_MIN or seen > RATIO_MAX and RATIO_MAX or seen
      ratio = floor(ratio + (seen - ratio) / samples)
      local sample = floor(output * 1000 / choices)
      if outputs == 0 then
        quantile = sample
      elseif sample > quantile then
        quantile = quantile * (1 + STEP * QUANTILE)
      else
        quantile = quantile * (1 - STEP * (1 - QUANTILE))
      end
      quantile = ceil(quantile)
      quantile = quantile < 1000 and 1000 or quantile > OUTPUT_MAX and OUTPUT_MAX or quantile
      outputs = outputs < SAMPLES_MAX and outputs + 1 or outputs
    end

    ended[#ended + 1] = id
    inputs, cacheds, all_outputs, costs = inputs + input, cacheds + cached, all_outputs + output, costs + cost
    guesses, hits, requests = guesses + estimated, hits + hit, requests + 1
    if events_max ~= '0' then
      call('XADD', KEYS[3], 'MAXLEN', '~', events_max, '*', 'id', id, 'key', key, 'scenario', scenario,
        'backend', backend, 'status', status_text, 'input', input_text, 'cached', cached_text, 'output', output_text,
        'cost', cost_text, 'estimated', estimated == 1 and '1' or '0', 'hit', hit == 1 and '1' or '0',
        'variant', variant)
    end
  end
end

local writes, written = {}, 0
for place = 1, count do
  if dirty[place] then
    local limit = limits[place]
    writes[written + 1] = limit[FIELD]
    if limit[KIND] == RATE then
      writes[written + 2] =
        pack_bucket(firsts[place], seconds[place], thirds[place], limit[CAPACITY], fourths[place])
    else
      writes[written + 2] = pack(firsts[place], seconds[place], thirds[place], fourths[place])
    end
    written = written + 2
  end
end
if learned then
  writes[written + 1], writes[written + 2] = fields[2], pack(ratio, samples, today)
  writes[written + 3], writes[written + 4] = fields[3], pack(quantile, outputs, today)
  written = written + 4
end
if written > 0 then
  local fresh = epoch == ''
  if fresh then -- not the id alone: the epoch that was lost may have had it from this lease's admission
    epoch = ended[1] .. string.format('-%.0f', now)
    writes[written + 1], writes[written + 2] = 'e', pack(epoch, today)
  end
  call('HSET', KEYS[1], unpack(writes))
  if fresh then
    call('EXPIRE', KEYS[1], KEEP_DAYS * 86400)
  end
end

if requests > 0 then
  for place = 4, slots_end do
    call('ZREM', KEYS[place], unpack(ended))
  end
  local prefix = key .. '|' .. scenario .. '|' .. backend .. '|'
  local names = {'input', 'cached', 'output', 'cost', 'estimated', 'hits'}
  local counts = {inputs, cacheds, all_outputs, costs, guesses, hits}
  for place = 1, 6 do
    if counts[place] ~= 0 then
      call('HINCRBY', KEYS[2], prefix .. names[place], string.format('%.0f', counts[place]))
    end
  end
  if call('HINCRBY', KEYS[2], prefix .. 'requests', requests) == requests then
    -- each day begins with a first one, so a lifetime of a day more than the retention holds to its end
    call('EXPIRE', KEYS[2], lifetime_s)
    call('EXPIRE', KEYS[3], lifetime_s)
  end
end
return pack({epoch, outcomes})
