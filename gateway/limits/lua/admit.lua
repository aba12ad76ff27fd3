-- Admits one call: takes from all limits of the call, or from none.
--
-- KEYS  1 levels, 2 the record of the lease, 3... the slots of each limit of concurrency, in the order of the limits
-- ARGV  1 {lease id, {limits, record_ms, slot_ms, scenario, first output}, backend, text bytes, input upper bound,
--          output cap or -1, worst output, choices, input price, output price}
--       outputs are tokens of one choice, prices nano-USD per million tokens
-- Reply {status, epoch, now_ms, refusing limit or 0, retry_after_ms, output limit or -1, input estimate,
--        output estimate, expired slots, {shadowed limits}, {window}, {remaining}, {reset_ms}, {used}}
--       status 1 admitted, 0 refused, 2 the lease is known: it was voided before it came, or has been admitted before
--       epoch is empty where there are no levels and none were made
--
-- A refusal writes nothing but may remove slots that have expired. Of several refusing limits the one that refuses
-- longest is named, so that the wait is one after which the call really fits.
-- Shadow limits refuse nobody: a rate that would have refused takes nothing, since the call would not have come; budgets
-- and slots go on counting beyond their amount.

local MILLION = 1000000
local RATIO_FIRST = 300000 -- tokens per million bytes: somewhat more than English text has
local SLOT_WAIT_MS = 1000 -- nobody knows when a call will end

local args = unpacked(ARGV[1])
local id, kind_of_call, backend, text_bytes, input_upper = args[1], args[2], args[3], args[4], args[5]
local output_cap, worst_output, choices, input_price, output_price = args[6], args[7], args[8], args[9], args[10]
local limits, record_ms, slot_ms = kind_of_call[1], kind_of_call[2], kind_of_call[3]
local scenario, first_output = kind_of_call[4], kind_of_call[5]

local count = #limits
local fields = {'e', 'i|' .. backend, 'o|' .. scenario}
for place = 1, count do
  fields[place + 3] = limits[place][FIELD]
end
local states = call('HMGET', KEYS[1], unpack(fields))

local ratio = states[2] and unpacked(states[2]) or RATIO_FIRST
local input_estimate = ceil(text_bytes * ratio / MILLION)
input_estimate = input_estimate > input_upper and input_upper or input_estimate < 1 and 1 or input_estimate
local expected = states[3] and ceil(unpacked(states[3]) / 1000) or first_output

-- The price of a call with `tokens` of output in nano-USD, rounded up once; nil where there is none.
-- Whole and part of a token's price are kept apart, to stay below 2^53.
local cost_of
if input_price > 0 or output_price > 0 then
  local input_whole, input_part = floor(input_price / MILLION), input_price % MILLION
  local output_whole, output_part = floor(output_price / MILLION), output_price % MILLION
  cost_of = function(tokens)
    return input_upper * input_whole + tokens * output_whole
      + ceil((input_upper * input_part + tokens * output_part) / MILLION)
  end
end

local windows, remaining, resets, usages, waits = {}, {}, {}, {}, {}
local others, others_used, hiddens = {}, {}, {} -- the rest of a state; of a bucket: when, and its rest
local shadowed = {}

-- Budgets first: they decide how much output there can be.
local output, least, bounds_output = worst_output, worst_output < 1 and worst_output or 1, false
for place = 1, count do
  local limit = limits[place]
  local kind = limit[KIND]
  if kind ~= RATE and kind ~= CONCURRENCY then
    local period, ends_ms = window_at(kind, now)
    local window, used, other, other_used = budget_at(states[place + 3], period)
    windows[place], usages[place], others[place], others_used[place] = window, used, other, other_used
    resets[place] = ends_ms - now
    -- The most output of one choice that is left for; below `least` where it refuses.
    local unit, left, room = limit[UNIT], limit[AMOUNT] - used, -1
    if unit == TOKENS then
      room = floor((left - input_upper) / choices)
    elseif unit == OUTPUT_TOKENS then
      room = floor(left / choices)
    elseif unit ~= COST then
      room = left >= (unit == REQUESTS and 1 or input_upper) and output or -1
    elseif not cost_of or cost_of(output * choices) <= left then
      room = output
    elseif cost_of(0) <= left then
      local low, high = 0, output * choices -- cost_of(low) <= left < cost_of(high)
      while high - low > 1 do
        local middle = floor((low + high) / 2)
        if cost_of(middle) <= left then
          low = middle
        else
          high = middle
        end
      end
      room = floor(low / choices)
    end
    if limit[SHADOW] == 1 then
      if room < least then
        shadowed[#shadowed + 1] = place
      end
    elseif room < least then
      waits[place] = resets[place]
    else
      bounds_output = bounds_output or unit ~= REQUESTS and unit ~= INPUT_TOKENS
      output = room < output and room or output
    end
  end
end

expected = expected < output and expected or output
local output_estimate, output_worst = expected * choices, output * choices
-- By unit: what rates take, and what budgets take.
local likely = {1, input_estimate + output_estimate, input_estimate, output_estimate}
local worst = {1, input_upper + output_worst, input_upper, output_worst, cost_of and cost_of(output_worst) or 0}

local takes, expired, slots, refusing = {}, 0, 2, 0
for place = 1, count do
  local limit = limits[place]
  local kind = limit[KIND]
  if kind == RATE then
    local amount, capacity, period = limit[AMOUNT], limit[CAPACITY], limit[PERIOD_MS]
    local used, at, rest, hidden = bucket_at(states[place + 3], amount, capacity, period)
    local take = likely[limit[UNIT]]
    -- What is larger than the bucket passes when it is full, and leaves debt.
    local missing = take > capacity and used or used + take - capacity
    if missing > 0 then
      if limit[SHADOW] == 1 then
        shadowed[#shadowed + 1] = place
        take = -1
      else
        waits[place] = refill_ms(missing, at, rest, amount, period)
      end
    end
    windows[place], usages[place], takes[place] = 0, used, take
    others[place], others_used[place], hiddens[place] = at, rest, hidden
  elseif kind == CONCURRENCY then
    slots = slots + 1
    local held = call('ZCARD', KEYS[slots])
    if held >= limit[AMOUNT] then
      local gone = call('ZREMRANGEBYSCORE', KEYS[slots], '-inf', now)
      held, expired = held - gone, expired + gone
      if held >= limit[AMOUNT] then
        if limit[SHADOW] == 1 then
          shadowed[#shadowed + 1] = place
        else
          waits[place] = SLOT_WAIT_MS
        end
      end
    end
    windows[place], usages[place], takes[place], resets[place] = 0, held, 1, 0
  else
    takes[place] = worst[limit[UNIT]]
  end
  if waits[place] and (refusing == 0 or waits[place] > waits[refusing]) then
    refusing = place
  end
end

local epoch, upkeep_day = id, -1
if states[1] then
  epoch, upkeep_day = unpacked(states[1])
end
local today = floor(now / DAY_MS)
local status = refusing == 0 and 1 or 0
if status == 1 and not call('SET', KEYS[2], pack(epoch, takes, windows), 'NX', 'PX', record_ms) then
  status = 2
end

-- The levels as they are now; with an admission they are written too.
local writes, written = {}, 0
slots = 2
for place = 1, count do
  local limit = limits[place]
  local kind, used, take = limit[KIND], usages[place], takes[place]
  if kind == CONCURRENCY then
    slots = slots + 1
    if status == 1 then
      used = used + 1
      call('ZADD', KEYS[slots], now + slot_ms, id)
      call('PEXPIRE', KEYS[slots], slot_ms * 2)
    end
    remaining[place] = limit[AMOUNT] - used
  else
    local taken = status == 1 and take > 0
    if taken then
      used = used + take
      used = used > COUNT_MAX and COUNT_MAX or used
      writes[written + 1] = limit[FIELD]
    end
    if kind == RATE then
      local at, rest, capacity = others[place], others_used[place], limit[CAPACITY]
      remaining[place] = capacity - used
      resets[place] = refill_ms(used, at, rest, limit[AMOUNT], limit[PERIOD_MS])
      if taken then
        writes[written + 2] = pack_bucket(used, at, rest, capacity, hiddens[place])
      end
    else
      remaining[place] = limit[AMOUNT] - used
      if taken then
        writes[written + 2] = pack(windows[place], used, others[place], others_used[place])
      end
    end
    written = taken and written + 2 or written
  end
  usages[place] = used
end
if status == 1 and upkeep_day ~= today then
  writes[written + 1], writes[written + 2] = 'e', pack(epoch, today)
  written = written + 2
end
if written > 0 then
  call('HSET', KEYS[1], unpack(writes))
end

-- Once a day the hash gets a new lifetime, and what nobody touched for KEEP_DAYS leaves it.
if status == 1 and upkeep_day ~= today then
  call('EXPIRE', KEYS[1], KEEP_DAYS * 86400)
  local all = call('HGETALL', KEYS[1])
  for place = 1, #all, 2 do
    local field, first, second, third = all[place], unpacked(all[place + 1])
    local idle = 0
    if field ~= 'e' and field:sub(1, 2) ~= 'l|' then -- learned; a backend or scenario may be called `day`
      idle = today - third
    elseif field:sub(-4) == '|day' then
      idle = today - floor((first > third and first or third) / GENERATIONS)
    elseif field:sub(-6) == '|month' then
      idle = (window_at(3, now) - floor((first > third and first or third) / GENERATIONS)) * 31
    elseif field ~= 'e' then
      idle = today - floor(second / DAY_MS)
    end
    if idle > KEEP_DAYS then
      call('HDEL', KEYS[1], field)
    end
  end
end

local output_limit = -1
if bounds_output and (output_cap < 0 or output < output_cap) then
  output_limit = output
end
return pack({
  status, (status == 1 or states[1]) and epoch or '', now, refusing, waits[refusing] or 0, output_limit,
  input_estimate, output_estimate, expired, shadowed, windows, remaining, resets, usages,
})
