-- Reads levels, resets them, or restores what was seen before a loss.
--
-- KEYS  1 levels, 2... the slots of each limit of concurrency, in the order of the limits
-- ARGV  1 limits; 0 read | 1 reset | 2, {used}, {window}, seen_ms, candidate epoch restore
-- Reply {epoch, now_ms, {window}, {remaining}, {reset_ms}, {used}}: the levels afterwards
--
-- A reset begins a new generation of a window: what was reserved before it is neither given back to it nor charged.
-- A restore only ever raises use: to what was seen, less what a bucket has been refilled with since. It may be repeated,
-- and by several replicas; slots come back by renewal.

local READ, RESET = 0, 1

local _, action, used, used_windows, seen_ms, candidate = unpack_limit(told, 5, offset)

local fields = {'e'}
for place = 1, count do
  fields[place + 1] = limits[place][FIELD]
end
local states = call('HMGET', KEYS[1], unpack(fields))
local epoch = states[1] and unpacked(states[1]) or ''

-- Of a limit: window, remaining, reset_ms, used.
local function level_of(limit, raw, slots)
  local kind, amount = limit[KIND], limit[AMOUNT]
  if kind == RATE then
    local capacity, period = limit[CAPACITY], limit[PERIOD_MS]
    local used, at, rest = bucket_at(raw, amount, capacity, period)
    return 0, capacity - used, refill_ms(used, at, rest, amount, period), used
  elseif kind == CONCURRENCY then
    local held = call('ZCOUNT', slots, '(' .. string.format('%.0f', now), '+inf')
    return 0, amount - held, 0, held
  end
  local period, ends_ms = window_at(kind, now)
  local window, used = budget_at(raw, period)
  return window, amount - used, ends_ms - now, used
end

local function reset(limit, raw, slots)
  if limit[KIND] == CONCURRENCY then
    call('DEL', slots)
    return nil
  elseif not raw then
    return nil
  elseif limit[KIND] == RATE then
    return pack_bucket(0, now, 0, limit[CAPACITY], 0)
  end
  local window, _, other, other_used = budget_at(raw, (window_at(limit[KIND], now)))
  local last = window % GENERATIONS == GENERATIONS - 1
  return pack(last and window or window + 1, 0, other, other_used)
end

local function restored(limit, raw, used, window, seen_ms)
  if limit[KIND] == CONCURRENCY or used <= 0 then
    return nil
  elseif limit[KIND] == RATE then
    local amount, capacity, period = limit[AMOUNT], limit[CAPACITY], limit[PERIOD_MS]
    local seen = bucket_at(pack(used, seen_ms, 0, capacity, 0), amount, capacity, period)
    local present, at, rest, hidden = bucket_at(raw, amount, capacity, period)
    return seen > present and pack_bucket(seen, at, rest, capacity, hidden) or nil
  end
  local period = floor(window / GENERATIONS)
  local kept, kept_used, other, other_used = budget_at(raw, period)
  if period < window_at(limit[KIND], now) - 1 or window < kept or (window == kept and used <= kept_used) then
    return nil
  end
  return pack(window, used > kept_used and used or kept_used, other, other_used)
end

local writes, written, slots = {}, 0, 1
local windows, remaining, resets, usages = {}, {}, {}, {}
for place = 1, count do
  local limit, state = limits[place], nil
  if limit[KIND] == CONCURRENCY then
    slots = slots + 1
  end
  if action == RESET then
    state = reset(limit, states[place + 1], KEYS[slots])
  elseif action ~= READ then
    state = restored(limit, states[place + 1], used[place], used_windows[place], seen_ms)
  end
  if state then
    writes[written + 1], writes[written + 2] = limit[FIELD], state
    written = written + 2
  end
  windows[place], remaining[place], resets[place], usages[place] =
    level_of(limit, state or states[place + 1], KEYS[slots])
end
if written > 0 then
  if epoch == '' then
    epoch = candidate
    writes[written + 1], writes[written + 2] = 'e', pack(epoch, floor(now / DAY_MS))
  end
  call('HSET', KEYS[1], unpack(writes))
  call('EXPIRE', KEYS[1], KEEP_DAYS * 86400)
end
return pack({epoch, now, windows, remaining, resets, usages})
