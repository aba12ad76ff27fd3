-- What was said of a call's answer since, and whether whoever makes the call is still there.
--
-- KEYS  1 who makes the call, 2 what was said, 3 whether others wait for it
-- ARGV  1 id of who makes it, 2 how many pieces are known, 3 lease_ms, 4 most pieces to answer with
-- Reply {1 or 0, pieces}

local there = redis.call('GET', KEYS[1]) == ARGV[1]
if there then
  redis.call('SET', KEYS[3], '1', 'PX', ARGV[3])
end
return {there and 1 or 0, redis.call('LRANGE', KEYS[2], ARGV[2], ARGV[2] + ARGV[4] - 1)}
