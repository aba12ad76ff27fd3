-- Keeps an answer, unless the tenant or the scenario was purged since it was asked for.
--
-- KEYS  1 marks of the tenant, 2 the answer
-- ARGV  1 scenario, 2 the marks it was asked for under, 3 the answer, 4 ttl_ms, 5 marks_s
-- Reply 1 kept, 0 not

local marks = redis.call('HMGET', KEYS[1], 'e', 't', 's|' .. ARGV[1])
if (marks[1] or '') .. '.' .. (marks[2] or '') .. '.' .. (marks[3] or '') ~= ARGV[2] then
  return 0
end
redis.call('SET', KEYS[2], ARGV[2] .. '\n' .. ARGV[3], 'PX', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1
