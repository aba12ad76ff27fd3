-- Puts what was kept of a tenant, or of one of its scenarios, out of reach for good; it expires by itself.
--
-- KEYS  1 marks of the tenant
-- ARGV  1 scenario, empty: all of them, 2 a fresh epoch, 3 a fresh mark, 4 marks_s
-- Reply 1

redis.call('HSETNX', KEYS[1], 'e', ARGV[2])
if ARGV[1] == '' then
  redis.call('HSET', KEYS[1], 't', ARGV[3])
else
  redis.call('HSET', KEYS[1], 's|' .. ARGV[1], ARGV[3])
end
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
