-- Undoes an admission whose reply was lost, or keeps it from happening if it has not happened yet.
--
-- KEYS  1 levels, 2 the record of the lease, 3... the slots of each limit of concurrency
-- ARGV  1 limits, as at the admission and in its order; lease id, record_ms
-- Reply {outcome, epoch}: 0 everything was given back, 1 there was nothing and a late admission will find the mark,
--       2 the lease had been settled
--
-- What was taken is known from the record alone. Where the levels have been lost since, there is nothing to give back.

-- The state of a limit with `difference` added to what was reserved from exactly `reserved`; nil where nothing changes:
-- that window is not kept any more, or the limit was reset since.
local function corrected(limit, raw, reserved, difference)
  local kind = limit[KIND]
  if difference == 0 or kind == CONCURRENCY then
    return nil
  elseif kind == RATE then
    local capacity = limit[CAPACITY]
    local used, at, rest, hidden = bucket_at(raw, limit[AMOUNT], capacity, limit[PERIOD_MS])
    return pack_bucket(used + difference, at, rest, capacity, hidden)
  elseif not raw then
    return nil
  end
  local window, used, other, other_used = unpacked(raw)
  if window == reserved then
    return pack(window, bounded(used + difference), other, other_used)
  elseif other == reserved then
    return pack(window, used, other, bounded(other_used + difference))
  end
  return nil
end

local _, id, record_ms = unpack_limit(told, 2, offset)

local fields = {'e'}
for place = 1, count do
  fields[place + 1] = limits[place][FIELD]
end
local states = call('HMGET', KEYS[1], unpack(fields))
local epoch = states[1] and unpacked(states[1]) or ''

local record = call('GET', KEYS[2])
if record == 's' then
  return pack({2, epoch})
elseif record == 'v' then
  return pack({1, epoch})
end
call('SET', KEYS[2], 'v', 'PX', record_ms)
if not record then
  return pack({1, epoch})
end

local taken = {unpacked(record)}
local writes, written, budgets = {}, 0, 0
for place = 1, count do
  local limit, take, window = limits[place], taken[1 + place], 0
  if limit[KIND] ~= RATE and limit[KIND] ~= CONCURRENCY then
    budgets = budgets + 1
    window = taken[1 + count + budgets]
  end
  local state = taken[1] == epoch and take > 0 and corrected(limit, states[place + 1], window, -take)
  if state then
    writes[written + 1], writes[written + 2] = limit[FIELD], state
    written = written + 2
  end
end
if written > 0 then
  call('HSET', KEYS[1], unpack(writes))
end
for place = 3, #KEYS do
  call('ZREM', KEYS[place], id)
end
return pack({0, epoch})
