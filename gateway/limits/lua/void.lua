-- Undoes an admission whose reply was lost, or keeps it from happening if it has not happened yet.
--
-- KEYS  1 levels, 2 the record of the lease, 3... the slots of each limit of concurrency
-- ARGV  1 {lease id, limits, record_ms}; limits as at the admission and in its order
-- Reply {outcome, epoch}: 0 everything was given back, 1 there was nothing and a late admission will find the mark,
--       2 the lease had been settled
--
-- What was taken is known from the record alone. Where the levels have been lost since, there is nothing to give back.

local args = unpacked(ARGV[1])
local id, limits, record_ms = args[1], args[2], args[3]

local fields = {'e'}
for place = 1, #limits do
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

local since, takes, windows = unpacked(record)
local writes, written = {}, 0
for place = 1, #limits do
  local limit, take = limits[place], takes[place] or -1
  local state = since == epoch and take > 0 and corrected(limit, states[place + 1], windows[place], -take)
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
