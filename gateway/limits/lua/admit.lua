-- Admits calls of one kind, one after the other: each takes from all limits of the kind, or from none.
--
-- KEYS  1 levels, 2... the slots of each limit of concurrency, in the order of the limits, then the record of each lease
-- ARGV  1 limits; number of calls, record_ms, slot_ms, scenario, first output, backend; then of each call:
--         lease id, text bytes, input upper bound, output cap or -1, worst output, choices, input price, output price
--       outputs are tokens of one choice, prices nano-USD per million tokens; record_ms is decimal text, since it goes to
--       a command as it is
-- Reply {epoch, now_ms, expired slots, {window}, {until}, {of each call, without a break between them:
--        refusing limit, retry_after_ms, output limit or -1, input estimate, output estimate, {shadowed limits} or 0,
--        and of each limit how much is in use afterwards}}
--       refusing is 0 where the call was admitted, and -1 where the lease is known: it was voided before it came, or has
--       been admitted before
--       until is that of a budget's window in ms; of a bucket the part of the next refill that has come, in 1/period,
--       less what its time is ahead of now
--       epoch is empty where there are no levels and none were made
--
-- A refusal writes nothing but may remove slots that have expired. Of several refusing limits the one that refuses
-- longest is named, so that the wait is one after which the call really fits.
-- Shadow limits refuse nobody: a rate that would have refused takes nothing, since the call would not have come; budgets
-- and slots go on counting beyond their amount.

local MILLION = 1000000
local RATIO_FIRST = 300000 -- tokens per million bytes: somewhat more than English text has
local SLOT_WAIT_MS = 1000 -- nobody knows when a call will end

local calls, record_ms, slot_ms, scenario, first_output, backend
offset, calls, record_ms, slot_ms, scenario, first_output, backend = unpack_limit(told, 6, offset)

local fields = {'e', 'i|' .. backend, 'o|' .. scenario}
for place = 1, count do
  fields[place + 3] = limits[place][FIELD]
end
local states = call('HMGET', KEYS[1], unpack(fields))
local epoch, upkeep_day = '', -1
if states[1] then
  epoch, upkeep_day = unpacked(states[1])
end
local ratio = states[2] and unpacked(states[2]) or RATIO_FIRST
local expected = states[3] and ceil(unpacked(states[3]) / 1000) or first_output

-- What is in use now; `seconds` to `fourths` are the rest of a state: of a bucket when, its rest and what is hidden.
local windows, untils, usages, seconds, thirds, fourths = {}, {}, {}, {}, {}, {}
local budgets, rates, slots = {}, {}, {} -- places
for place = 1, count do
  local limit, raw = limits[place], states[place + 3]
  local kind = limit[KIND]
  windows[place], untils[place] = 0, 0
  if kind == RATE then
    rates[#rates + 1] = place
    local used, at, rest, hidden = bucket_at(raw, limit[AMOUNT], limit[CAPACITY], limit[PERIOD_MS])
    usages[place], seconds[place], thirds[place], fourths[place] = used, at, rest, hidden
    untils[place] = at > now and rest - (at - now) * limit[AMOUNT] or rest
  elseif kind == CONCURRENCY then
    slots[#slots + 1] = place
    usages[place] = call('ZCARD', KEYS[1 + #slots])
  else
    budgets[#budgets + 1] = place
    local period, ends_ms = window_at(kind, now)
    windows[place], usages[place], seconds[place], thirds[place] = budget_at(raw, period)
    untils[place] = ends_ms - now
  end
end

-- The price of a call in nano-USD, rounded up once. Whole and part of a token's price are kept apart, to stay below 2^53.
local function cost_of(input, output, input_price, output_price)
  local input_part, output_part = input_price % MILLION, output_price % MILLION
  return input * ((input_price - input_part) / MILLION) + output * ((output_price - output_part) / MILLION)
    + ceil((input * input_part + output * output_part) / MILLION)
end

-- The most output of one choice, at most `most`, that a budget of cost has room for; -1: not even for the input.
local function affordable(left, input, most, choices, input_price, output_price)
  if cost_of(input, most * choices, input_price, output_price) <= left then
    return most
  elseif cost_of(input, 0, input_price, output_price) > left then
    return -1
  end
  local low, high = 0, most * choices -- the cost of low <= left < that of high
  while high - low > 1 do
    local middle = floor((low + high) / 2)
    if cost_of(input, middle, input_price, output_price) <= left then
      low = middle
    else
      high = middle
    end
  end
  return floor(low / choices)
end

local likely, worst = {1, 0, 0, 0}, {1, 0, 0, 0, 0} -- by unit: what rates take, and what budgets take
local takes, dirty, swept, expired = {}, {}, {}, 0
local taking, answers, answered = {}, {}, 0 -- scores and members of slots; what is answered of calls

-- The record of a lease: epoch, what was taken of each limit, the window of each budget.
local record, recorded = {epoch}, 1 + count + #budgets
for place = 1, count do
  record[1 + place] = 0
end
for index = 1, #budgets do
  record[1 + count + index] = windows[budgets[index]]
end

for number = 1, calls do
  local id, text_bytes, input, output_cap, output, choices, input_price, output_price
  offset, id, text_bytes, input, output_cap, output, choices, input_price, output_price = unpack_limit(told, 8, offset)
  local input_estimate = ceil(text_bytes * ratio / MILLION)
  input_estimate = input_estimate > input and input or input_estimate < 1 and 1 or input_estimate
  local refusing, wait, shadowed = 0, 0, 0

  -- Budgets first: they decide how much output there can be.
  local least, bounds_output, priced = output < 1 and output or 1, false, input_price > 0 or output_price > 0
  for index = 1, #budgets do
    local place = budgets[index]
    local limit = limits[place]
    -- The most output of one choice that is left for; below `least` where it refuses.
    local unit, left, room = limit[UNIT], limit[AMOUNT] - usages[place], -1
    if unit == TOKENS then
      room = floor((left - input) / choices)
    elseif unit == OUTPUT_TOKENS then
      room = floor(left / choices)
    elseif unit ~= COST then
      room = left >= (unit == REQUESTS and 1 or input) and output or -1
    else
      room = priced and affordable(left, input, output, choices, input_price, output_price) or output
    end
    if limit[SHADOW] == 1 then
      if room < least then
        shadowed = shadowed == 0 and {} or shadowed
        shadowed[#shadowed + 1] = place
      end
    elseif room < least then
      if untils[place] > wait then
        refusing, wait = place, untils[place]
      end
    else
      bounds_output = bounds_output or unit ~= REQUESTS and unit ~= INPUT_TOKENS
      output = room < output and room or output
    end
  end

  local output_estimate, output_worst = (expected < output and expected or output) * choices, output * choices
  likely[TOKENS], likely[INPUT_TOKENS], likely[OUTPUT_TOKENS] =
    input_estimate + output_estimate, input_estimate, output_estimate
  worst[TOKENS], worst[INPUT_TOKENS], worst[OUTPUT_TOKENS] = input + output_worst, input, output_worst
  worst[COST] = priced and cost_of(input, output_worst, input_price, output_price) or 0
  for index = 1, #budgets do
    local place = budgets[index]
    takes[place] = worst[limits[place][UNIT]]
  end

  for index = 1, #rates do
    local place = rates[index]
    local limit, used = limits[place], usages[place]
    local take, capacity = likely[limit[UNIT]], limit[CAPACITY]
    -- What is larger than the bucket passes when it is full, and leaves debt.
    local missing = take > capacity and used or used + take - capacity
    if missing > 0 then
      if limit[SHADOW] == 1 then
        shadowed = shadowed == 0 and {} or shadowed
        shadowed[#shadowed + 1] = place
        take = -1
      else
        local longer = refill_ms(missing, seconds[place], thirds[place], limit[AMOUNT], limit[PERIOD_MS])
        if longer > wait or longer == wait and place < refusing then
          refusing, wait = place, longer
        end
      end
    end
    takes[place] = take
  end

  for index = 1, #slots do
    local place = slots[index]
    local limit = limits[place]
    if usages[place] >= limit[AMOUNT] and not swept[place] then
      local gone = call('ZREMRANGEBYSCORE', KEYS[1 + index], '-inf', now)
      usages[place], expired, swept[place] = usages[place] - gone, expired + gone, true
    end
    if usages[place] >= limit[AMOUNT] then
      if limit[SHADOW] == 1 then
        shadowed = shadowed == 0 and {} or shadowed
        shadowed[#shadowed + 1] = place
      elseif SLOT_WAIT_MS > wait or SLOT_WAIT_MS == wait and place < refusing then
        refusing, wait = place, SLOT_WAIT_MS
      end
    end
    takes[place] = 1
  end

  if refusing == 0 then
    record[1] = epoch == '' and id or epoch
    for place = 1, count do
      record[1 + place] = takes[place]
    end
    if call('SET', KEYS[1 + #slots + number], pack(unpack(record, 1, recorded)), 'NX', 'PX', record_ms) then
      epoch = record[1]
      taking[#taking + 1], taking[#taking + 2] = now + slot_ms, id
      for place = 1, count do
        local take = takes[place]
        if take > 0 then
          local used = usages[place] + take
          usages[place], dirty[place] = used > COUNT_MAX and COUNT_MAX or used, true
        end
      end
    else
      refusing = -1
    end
  end

  answers[answered + 1], answers[answered + 2] = refusing, wait
  answers[answered + 3] = bounds_output and (output_cap < 0 or output < output_cap) and output or -1
  answers[answered + 4], answers[answered + 5], answers[answered + 6] = input_estimate, output_estimate, shadowed
  answered = answered + 6
  for place = 1, count do
    answers[answered + place] = usages[place]
  end
  answered = answered + count
end

-- What was taken is written once, and once a day the hash gets a new lifetime, and what nobody touched for KEEP_DAYS
-- leaves it.
if #taking > 0 then
  local writes, written, today = {}, 0, floor(now / DAY_MS)
  for index = 1, #rates do
    local place = rates[index]
    if dirty[place] then
      local state = pack_bucket(usages[place], seconds[place], thirds[place], limits[place][CAPACITY], fourths[place])
      writes[written + 1], writes[written + 2] = limits[place][FIELD], state
      written = written + 2
    end
  end
  for index = 1, #budgets do
    local place = budgets[index]
    if dirty[place] then
      local state = pack(windows[place], usages[place], seconds[place], thirds[place])
      writes[written + 1], writes[written + 2] = limits[place][FIELD], state
      written = written + 2
    end
  end
  if upkeep_day ~= today then
    writes[written + 1], writes[written + 2] = 'e', pack(epoch, today)
    written = written + 2
  end
  if written > 0 then
    call('HSET', KEYS[1], unpack(writes))
  end
  for index = 1, #slots do
    call('ZADD', KEYS[1 + index], unpack(taking))
    call('PEXPIRE', KEYS[1 + index], slot_ms * 2)
  end
  if upkeep_day ~= today then
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
end
return pack({epoch, now, expired, windows, untils, answers})
