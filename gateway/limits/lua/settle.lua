-- Ends calls of one kind: charges what each used instead of what was reserved, writes the ledger, learns. Each once: a
-- repetition changes nothing.
--
-- KEYS  1 levels, 2 usage of the day, 3 events, 4... slots of each limit of concurrency, then the record of each lease
-- ARGV  1 {limits, record_ms, lifetime_s of the ledger, events_max, {call}}
--       call: {lease id, admitted_ms, input, cached, output, cost, estimated, keep, key, scenario, backend, status,
--              text bytes or 0, choices, 1 for an answer of the cache or 0, variant}
--       limits as at the admissions and in their order; tokens and nano-USD; text bytes 0: there is nothing to learn;
--       record_ms, lifetime_s and events_max are decimal text, since they go to commands as they are
-- Reply {epoch, {outcome}}: 0 the reservation was corrected, 1 it was unknown and the use was charged, 2 a repetition
--
-- Differences go to the windows that were reserved from. A lease without a record of this epoch was never admitted here,
-- was voided, or was lost: the use is charged in full to the windows of `admitted_ms`, and to a bucket as much of it as
-- has not been refilled since.

local QUANTILE, STEP = 0.95, 0.3 -- of outputs; how far one sample moves it
local OUTPUT_MAX = 1000000000 -- in 1/1000 token
local RATIO_MIN, RATIO_MAX = 10000, 4000000
local SAMPLES_MAX = 64 -- the mean of about so many: slow to forget, but it does

local args = unpacked(ARGV[1])
local limits, record_ms, lifetime_s, events_max, calls = args[1], args[2], args[3], args[4], args[5]
local slots_end = #KEYS - #calls

local function text(number)
  return string.format('%.0f', number)
end

-- The state of a limit after a use that was never reserved; nil where nothing changes.
local function charged(limit, raw, amount, admitted_ms)
  local kind = limit[KIND]
  if kind == CONCURRENCY or amount == 0 then
    return nil
  elseif kind == RATE then
    local elapsed = now > admitted_ms and now - admitted_ms or 0
    amount = amount - floor(elapsed * limit[AMOUNT] / limit[PERIOD_MS])
    return amount > 0 and corrected(limit, raw, 0, amount) or nil
  end
  local period = window_at(kind, admitted_ms)
  if raw then
    local one, _, two = unpacked(raw)
    if two >= 0 and period < floor((two < one and two or one) / GENERATIONS) then
      return nil -- a window that is over and not kept
    end
  end
  local window, used, other, other_used = budget_at(raw, period)
  return pack(window, bounded(used + amount), other, other_used)
end

-- Ends one call, whose lease has this record; its outcome and the epoch.
local function settle(one, record_key)
  local id, admitted_ms = one[1], one[2]
  local input, cached, output, cost = bounded(one[3]), bounded(one[4]), bounded(one[5]), bounded(one[6])
  local estimated, keep, key, scenario, backend = one[7], one[8], one[9], one[10], one[11]
  local text_bytes, choices, hit = one[13], one[14], one[15]

  local fields = {'e', 'i|' .. backend, 'o|' .. scenario}
  for place = 1, #limits do
    fields[place + 3] = limits[place][FIELD]
  end
  local states = call('HMGET', KEYS[1], unpack(fields))
  local epoch = states[1] and unpacked(states[1]) or ''

  local record = call('SET', record_key, 's', 'GET', 'PX', record_ms)
  if record == 's' then
    return 2, epoch
  end
  local takes, windows
  if record and record ~= 'v' then
    local since
    since, takes, windows = unpacked(record)
    if since ~= epoch then
      takes = nil
    end
  end

  local actual = {1, input + output, input, output, cost}

  local writes, written = {}, 0
  for place = 1, #limits do
    local limit, state = limits[place], nil
    local amount = actual[limit[UNIT]]
    if not takes then
      state = charged(limit, states[place + 3], amount, admitted_ms)
    elseif keep == 0 and amount and (takes[place] or -1) >= 0 then
      state = corrected(limit, states[place + 3], windows[place], amount - takes[place])
    end
    if state then
      writes[written + 1], writes[written + 2] = limit[FIELD], state
      written = written + 2
    end
  end

  if text_bytes > 0 and #limits > 0 then
    local today = floor(now / DAY_MS)
    local ratio, samples = 0, 0
    if states[2] then
      ratio, samples = unpacked(states[2])
    end
    samples = samples < SAMPLES_MAX and samples + 1 or samples
    local seen = floor(input * 1000000 / text_bytes)
    seen = seen < RATIO_MIN and RATIO_MIN or seen > RATIO_MAX and RATIO_MAX or seen
    writes[written + 1], writes[written + 2] = fields[2], pack(floor(ratio + (seen - ratio) / samples), samples, today)

    local sample, quantile = floor(output * 1000 / choices), 0
    samples = 0
    if states[3] then
      quantile, samples = unpacked(states[3])
    end
    if samples == 0 then
      quantile = sample
    elseif sample > quantile then
      quantile = quantile * (1 + STEP * QUANTILE)
    else
      quantile = quantile * (1 - STEP * (1 - QUANTILE))
    end
    quantile = ceil(quantile)
    quantile = quantile < 1000 and 1000 or quantile > OUTPUT_MAX and OUTPUT_MAX or quantile
    samples = samples < SAMPLES_MAX and samples + 1 or samples
    writes[written + 3], writes[written + 4] = fields[3], pack(quantile, samples, today)
    written = written + 4
  end

  if written > 0 then
    local fresh = epoch == ''
    if fresh then -- not the id alone: the epoch that was lost may have had it from this lease's admission
      epoch = id .. string.format('-%.0f', now)
      writes[written + 1], writes[written + 2] = 'e', pack(epoch, floor(now / DAY_MS))
    end
    call('HSET', KEYS[1], unpack(writes))
    if fresh then
      call('EXPIRE', KEYS[1], KEEP_DAYS * 86400)
    end
  end
  for place = 4, slots_end do
    call('ZREM', KEYS[place], id)
  end

  local prefix = key .. '|' .. scenario .. '|' .. backend .. '|'
  local names = {'input', 'cached', 'output', 'cost', 'estimated', 'hits'}
  local counts = {input, cached, output, cost, estimated, hit}
  for place = 1, 6 do
    if counts[place] ~= 0 then
      call('HINCRBY', KEYS[2], prefix .. names[place], text(counts[place]))
    end
  end
  local first = call('HINCRBY', KEYS[2], prefix .. 'requests', 1) == 1
  if events_max ~= '0' then
    call('XADD', KEYS[3], 'MAXLEN', '~', events_max, '*', 'id', id, 'key', key, 'scenario', scenario, 'backend', backend,
      'status', text(one[12]), 'input', text(input), 'cached', text(cached), 'output', text(output), 'cost', text(cost),
      'estimated', text(estimated), 'hit', text(hit),
      'variant', one[16])
  end
  if first then -- each day begins with a first one, so a lifetime of a day more than the retention holds to its end
    call('EXPIRE', KEYS[2], lifetime_s)
    call('EXPIRE', KEYS[3], lifetime_s)
  end
  return takes and 0 or 1, epoch
end

local outcomes, epoch = {}, ''
for place = 1, #calls do
  outcomes[place], epoch = settle(calls[place], KEYS[slots_end + place])
end
return pack({epoch, outcomes})
