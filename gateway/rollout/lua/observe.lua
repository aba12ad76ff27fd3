-- Adds what one process saw of a rollout, maybe withdraws it, and returns all that is known of it.
--
-- KEYS[1]  hash of the rollout; its fields:
--          since      when it was first heard of, milliseconds of this server's clock
--          pane       number of the newest pane;  opened  when that began, milliseconds
--          withdrawn  when the canary was withdrawn, milliseconds; absent while it runs.  reason  why, for people
--          t:NAME     a count of all time;  N:NAME  the same in pane N, of the canary alone
-- ARGV[1]  pane_ms: a pane lasts so long at least ...
-- ARGV[2]  ... and until it has so many requests
-- ARGV[3]  panes that are kept
-- ARGV[4]  how long the hash outlives the last call, milliseconds
-- ARGV[5]  why the canary is to be withdrawn; empty: it is not. The first reason stays.
-- ARGV[6..] NAME, increment, NAME, increment, ...; a NAME that begins with "base." is in no pane
-- Result   all fields and values of the hash, flat.
--
-- Example: KEYS lgw:1:fleet:{fleet}:rollout:chat:1f0e...  ARGV 10000 50 6 7776000000 "" requests 20 failures 4

local key = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', key, 'pane', 'opened')
local pane, opened = tonumber(known[1]), tonumber(known[2])

if not pane then
  pane, opened = 0, now
  redis.call('HSET', key, 'since', string.format('%.0f', now), 'pane', 0, 'opened', string.format('%.0f', now))
end

local requests = tonumber(redis.call('HGET', key, pane .. ':requests') or 0)
if now - opened >= tonumber(ARGV[1]) and requests >= tonumber(ARGV[2]) then
  pane = pane + 1
  redis.call('HSET', key, 'pane', pane, 'opened', string.format('%.0f', now))
  local oldest = pane - tonumber(ARGV[3]) + 1
  for _, field in ipairs(redis.call('HKEYS', key)) do
    local number = tonumber(string.match(field, '^(%d+):'))
    if number and number < oldest then
      redis.call('HDEL', key, field)
    end
  end
end

for at = 6, #ARGV, 2 do
  local name, more = ARGV[at], ARGV[at + 1]
  redis.call('HINCRBY', key, 't:' .. name, more)
  if string.sub(name, 1, 5) ~= 'base.' then
    redis.call('HINCRBY', key, pane .. ':' .. name, more)
  end
end

if ARGV[5] ~= '' and redis.call('HSETNX', key, 'withdrawn', string.format('%.0f', now)) == 1 then
  redis.call('HSET', key, 'reason', ARGV[5])
end
redis.call('PEXPIRE', key, ARGV[4])
return redis.call('HGETALL', key)
