-- Ends one call: charges what was used instead of what was reserved, writes the ledger, learns. Once: a repetition
-- changes nothing.
--
-- KEYS  1 levels, 2 the record of the lease, 3 usage of the day, 4 events, 5... slots of each limit of concurrency
-- ARGV  1 {lease id, limits, record_ms, admitted_ms, input, cached, output, cost, estimated, keep, key, scenario, backend,
--          status, text bytes or 0, choices, lifetime_s of the ledger, events_max}
--       limits as at the admission and in its order; tokens and nano-USD; text bytes 0: there is nothing to learn; what
--       goes to commands is decimal text: record_ms, the four counts, estimated, status, lifetime_s, events_max
-- Reply {outcome, epoch}: 0 the reservation was corrected, 1 it was unknown and the use was charged, 2 a repetition
--
-- Differences go to the windows that were reserved from. A lease without a record of this epoch was never admitted here,
-- was voided, or was lost: the use is charged in full to the windows of `admitted_ms`, and to a bucket as much of it as
-- has not been refilled since.

local QUANTILE, STEP = 0.95, 0.3 -- of outputs; how far one sample moves it
local OUTPUT_MAX = 1000000000 -- in 1/1000 token
local RATIO_MIN, RATIO_MAX = 10000, 4000000
local SAMPLES_MAX = 64 -- the mean of about so many: slow to forget, but it does

local args = unpacked(ARGV[1])
local id, limits, record_ms, admitted_ms = args[1], args[2], args[3], args[4]
local input, output, cost = tonumber(args[5]), tonumber(args[7]), tonumber(args[8])
local keep, key, scenario, backend = args[10], args[11], args[12], args[13]
local text_bytes, choices, lifetime_s, events_max = args[15], args[16], args[17], args[18]

local fields = {'e', 'i|' .. backend, 'o|' .. scenario}
for place = 1, #limits do
  fields[place + 3] = limits[place][FIELD]
end
local states = call('HMGET', KEYS[1], unpack(fields))
local epoch = states[1] and unpacked(states[1]) or ''

local record = call('SET', KEYS[2], 's', 'GET', 'PX', record_ms)
if record == 's' then
  return pack({2, epoch})
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

-- The state of a limit after a use that was never reserved; nil where nothing changes.
local function charged(limit, raw, amount)
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

local writes, written = {}, 0
for place = 1, #limits do
  local limit, state = limits[place], nil
  local amount = actual[limit[UNIT]]
  if not takes then
    state = charged(limit, states[place + 3], amount)
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
for place = 5, #KEYS do
  call('ZREM', KEYS[place], id)
end

local prefix = key .. '|' .. scenario .. '|' .. backend .. '|'
local counts = {'input', 'cached', 'output', 'cost', 'estimated'}
for place = 1, 5 do
  if args[place + 4] ~= '0' then
    call('HINCRBY', KEYS[3], prefix .. counts[place], args[place + 4])
  end
end
local first = call('HINCRBY', KEYS[3], prefix .. 'requests', 1) == 1
if events_max ~= '0' then
  call('XADD', KEYS[4], 'MAXLEN', '~', events_max, '*', 'id', id, 'key', key, 'scenario', scenario, 'backend', backend,
    'status', args[14], 'input', args[5], 'cached', args[6], 'output', args[7], 'cost', args[8], 'estimated', args[9])
end
if first then -- each day begins with a first one, so a lifetime of a day more than the retention holds to its end
  call('EXPIRE', KEYS[3], lifetime_s)
  call('EXPIRE', KEYS[4], lifetime_s)
end
return pack({takes and 0 or 1, epoch})
